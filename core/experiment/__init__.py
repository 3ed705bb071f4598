"""What runs an algorithm. Nothing here knows one: teams and environments arrive as arguments.

Read the files in this order; what an earlier one needs of a later one can be taken on trust:

1. `vector_env.py`: copies of an environment side by side (`VectorEnv`), and what an environment may return.
2. `episodes.py`: E episodes from reset to the last end; the one place where "done" is split in two.
3. `training.py`: the training loop, `train`.
4. `evaluation.py`: `evaluate` on unseen episodes, intervals, paired differences.
5. `env_check.py`: what an environment must keep to, checked before every training.
6. `checkpoint.py`: files that a crash cannot halve, and their reading.
7. `distributed.py`: the same training shared out over processes (`torchrun`).
8. `cli.py`, `runs.py`, `signals.py`, `results.py`, `tables.py`, `plotting.py`: what the scripts of both
   problems share.
9. `csv_table.py`: a user's CSV file, refused line by line where it cannot be used.
10. `saved_teams.py`: the trained teams of a run's folder; `audit.py` and `what_if.py` question them.
11. `pettingzoo_adapter.py`: environments of another protocol, both ways.
"""
