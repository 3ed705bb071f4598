"""What runs an algorithm. Nothing here knows one: teams and environments arrive as arguments.

Read the files in this order; what an earlier one needs of a later one can be taken on trust:

1. `vector_env.py`: copies of an environment side by side (`VectorEnv`), and what an environment may return.
2. `episodes.py`: E episodes from reset to the last end; the one place where "done" is split in two.
3. `training.py`: the training loop, `train`.
4. `evaluation.py`: `evaluate` on unseen episodes, and intervals.
5. `env_check.py`: what an environment must keep to, checked before every training.
6. `runs/`: what makes a run a run. `run.py` is what `train.py` and `demo.py` call; `command.py` and `flags.py` are the
   command line, `settings.py` what an algorithm is given, `folders.py`, `checkpoint.py` and `resume.py` what is on the
   disk, `seeds.py`, `signals.py`, `waits.py`, `side_by_side.py` and `distributed.py` (`torchrun`) the rest.
7. `reporting/`: from numbers to people. `tables.py`, `comparison.py`, `plotting.py`; `csv_table.py` reads a user's file
   and refuses it line by line where it cannot be used.
8. `deployment/`: from a trained team to decisions. `saved_teams.py` opens a run (`open_run`); `decide.py` and `why.py`
   decide and explain, `export.py`, `policy.py` and `deploy.py` take agents elsewhere, `audit.py` and `what_if.py` ask.
9. `pettingzoo_adapter.py`: environments of another protocol, both ways.
"""
