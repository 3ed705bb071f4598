"""How much of a learnt advantage is signal? MAPPO on banking, half way through its training.

    OMP_NUM_THREADS=1 python tests/benchmarks/credit_signal.py         # a minute

The team of the demo's settings trains for 100 episodes with its learnt critic. Then it plays whole episodes in which
the consequences of every decision are known, and the critic's advantages of these decisions are set beside what the
decisions really were worth: A = Q(a) - sum of pi Q, (MAPPO-7). The square of their correlation is the share of the
learning signal that is about the decision.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from banking.settings import SETTINGS, make_env  # noqa: E402
from core.experiment.episodes import Episodes  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.mappo import known_advantages  # noqa: E402

STEPS, COPIES, FIRST_SEED = 600, 20, 800_000_000  # of an episode; played; validation episodes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the training (default: 1)")
    parser.add_argument("--episodes", type=int, default=100, help="of the training (default: 100)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS["mappo"]
    env = make_env(setting.num_envs, **setting.env)
    team = setting.team(env, {"seed": options.seed, "rollout_length": STEPS})  # whole episodes: the best case for GAE
    train(env, team, options.episodes, options.seed, progress=False)
    for pairs in (1, 2):
        team.config.episodes_per_seed = pairs
        learnt, known = advantages(team, pairs)
        share = np.corrcoef(learnt, known)[0, 1]
        how = "paired episodes" if pairs == 2 else "each episode its own luck"
        print(f"{how}: deviation of the known advantages {known.std():.2f}, correlation with the learnt {share:.3f}")
    return 0


def advantages(team, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Of all decisions with a choice in fresh episodes: what the critic makes of them, and what they were worth."""
    env = make_env(COPIES, **SETTINGS["mappo"].env, consequences=True)
    team.begin_rollouts(COPIES)
    now = Episodes(env, [FIRST_SEED + e - e % pairs for e in range(COPIES)], with_state=True)
    while now.running:
        happened, _ = now.step(team.select_actions(now.observations))
        team.buffer.add(happened, **team.acting)
    fields = team.buffer.filled()
    outputs = team.networks["actor"](team.agent_inputs(fields["observations"].flatten(0, 1))).transpose(0, 1)
    costs = torch.from_numpy(happened.consequences).transpose(0, 1)
    log_probs = torch.log_softmax(outputs.detach().view(costs.shape), dim=-1)
    known, choice = known_advantages(costs, fields["actions"], log_probs)
    learnt = team.prepare().advantages.view(known.shape)
    team.buffer.clear()
    return learnt[choice > 0].numpy(), known[choice > 0].numpy()


if __name__ == "__main__":
    sys.exit(main())
