"""Three multi-agent algorithms under centralized training with decentralized execution.

Read the algorithm first: the mathematics of `maddpg.py`, `mappo.py` or `qmix.py` (its pure losses), then its `update`.
Then look up what you miss, in this order:

1. `base_agent.py`: what an agent and a team are, and what a team is told (`Transition`).
2. `replay_buffer.py`: where experience waits: `ReplayBuffer` (off-policy) and `RolloutBuffer` (on-policy).
3. `networks.py`: `StackedMLP`, n networks as one batched matrix product.
4. `utils.py`: the few functions that two or more of these files call.
5. `team/`: the workshop, what makes a team robust and no loss needs: configuration, saving, devices, memory.
6. `experiment/`: what runs an algorithm: the training loop, evaluation, checkpoints, plots, command line.

Tags such as `(MADDPG-4)` stand beside the equation in `docs/MARL_THEORY.md` and on the line that computes it.
"""
