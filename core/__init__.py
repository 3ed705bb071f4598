"""Three multi-agent algorithms under centralized training with decentralized execution.

Read the files in this order; what an earlier one needs of a later one can be taken on trust:

1. `base_agent.py`: what an agent and a team are, and what a team is told (`Transition`).
2. `networks.py`: `StackedMLP`, n networks as one batched matrix product.
3. `replay_buffer.py`: where experience waits: `ReplayBuffer` (off-policy) and `RolloutBuffer` (on-policy).
4. `maddpg.py`, `mappo.py`, `qmix.py`: one algorithm a file, from its configuration to its factory.
5. `utils.py`: the few functions that two or more of these files call.
6. `experiment/`: what runs an algorithm: the training loop, evaluation, checkpoints, plots, command line.

Tags such as `(MADDPG-2)` stand beside the equation in `docs/MARL_THEORY.md` and on the line that computes it.
"""
