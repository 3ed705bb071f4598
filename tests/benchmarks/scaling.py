"""How the time of one update grows with the number of agents, for the three algorithms.

    OMP_NUM_THREADS=1 python tests/benchmarks/scaling.py            # a minute -> docs/images/scaling.csv and .png
    OMP_NUM_THREADS=1 python tests/benchmarks/scaling.py --publish  # and the table in section 9 of BENCHMARKS.md

Random data, 64-64 networks, 16 observations an agent. MADDPG: own networks, batch 64, one continuous action. MAPPO:
shared parameters, 4 passes over 10 x 25 steps, 5 actions. QMIX: shared parameters, batch 800 (32 x 25 steps), mixer 32,
5 actions. The algorithms take turns within each repeat, so that a busy moment of the machine does not fall on one of
them alone; times are of the processor, not of the clock. All seeds are 0.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from pages import put  # noqa: E402

from core.base_agent import AgentTeam, Transition  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

AGENTS = (2, 5, 10, 25, 50, 100)
OBSERVATION, CHOICES = 16, 5
NEVER = 10**9  # learning_starts: the benchmark decides when to learn
IMAGES = ROOT / "docs" / "images"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS, help=f"team sizes (default {AGENTS})")
    parser.add_argument("--repeats", type=int, default=15, help="timed updates for each number (default 15)")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of scaling.csv and scaling.png")
    parser.add_argument("--publish", action="store_true", help="write the table into docs/BENCHMARKS.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in options.agents:
        timed = {name: make(n) for name, make in ALGORITHMS.items()}
        samples = {name: [] for name in timed}
        for repeat in range(-2, options.repeats):  # the first two warm up
            for name, update in timed.items():
                seconds = update()
                if repeat >= 0:
                    samples[name].append(1000 * seconds)
        for name, ms in samples.items():
            low, middle, high = (round(value, 3) for value in (min(ms), median(ms), max(ms)))
            rows.append(
                {
                    "algorithm": name,
                    "agents": n,
                    "median_ms": middle,
                    "fastest_ms": low,
                    "slowest_ms": high,
                    "repeats": len(ms),
                    "threads": 1,
                    "torch": torch.__version__,
                    "processor": platform.processor() or platform.machine(),
                }
            )
            print(f"{name:7s} {n:4d} agents  {median(ms):9.2f} ms", flush=True)
    write(rows, options.out)
    if options.publish:
        publish(rows)
    return 0


# --- One timed update of each algorithm -------------------------------------------------------------------------------


def random_step(rng: np.random.Generator, team: AgentTeam, envs: int) -> Transition:
    """One step of `envs` made-up environments; the actions are the team's own."""
    n = team.num_agents
    seen = rng.standard_normal((2, envs, n, team.state_dim)).astype(np.float32)
    no = np.zeros((envs, n), dtype=bool)
    rewards = rng.standard_normal((envs, n)).astype(np.float32)
    return Transition(seen[0], team.select_actions(seen[0], training=True), rewards, seen[1], no, no, ~no)


def replaying(team: AgentTeam, envs: int = 50, steps: int = 40) -> Callable[[], float]:
    """Fill the replay buffer; the returned function times one update, sampling included."""
    rng = np.random.default_rng(0)
    team.begin_rollouts(envs)
    for _ in range(steps):
        team.observe(random_step(rng, team, envs))

    def update() -> float:
        start = time.process_time()
        team.update()
        return time.process_time() - start

    return update


def maddpg(n: int) -> Callable[[], float]:
    return replaying(create_maddpg_agents(OBSERVATION, 1, n, {"batch_size": 64, "learning_starts": NEVER, "seed": 0}))


def qmix(n: int) -> Callable[[], float]:
    config = {"batch_size": 32 * 25, "mixing_width": 32, "learning_starts": NEVER, "seed": 0}
    return replaying(create_qmix_agents(OBSERVATION, CHOICES, n, config))


def mappo(n: int) -> Callable[[], float]:
    return rolling(create_mappo_agents(OBSERVATION, CHOICES, n, {"rollout_length": 25, "epochs": 4, "seed": 0}))


def rolling(team: AgentTeam, envs: int = 10) -> Callable[[], float]:
    """The last step of a rollout is the one that learns, so that one is timed."""
    rng, steps = np.random.default_rng(0), team.config.rollout_length
    team.begin_rollouts(envs)

    def update() -> float:
        for _ in range(steps - 1):
            team.observe(random_step(rng, team, envs))
        last = random_step(rng, team, envs)
        start = time.process_time()
        learnt = team.observe(last)
        seconds = time.process_time() - start
        assert learnt, "the rollout should have been full"
        return seconds

    return update


ALGORITHMS = {"maddpg": maddpg, "mappo": mappo, "qmix": qmix}


# --- What is kept -----------------------------------------------------------------------------------------------------


def write(rows: list[dict], folder: Path) -> None:
    """scaling.csv and scaling.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "scaling.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, colour, marker in (("maddpg", "#0072B2", "o"), ("mappo", "#E69F00", "s"), ("qmix", "#009E73", "^")):
        mine = [row for row in rows if row["algorithm"] == name]
        agents, ms = ([row[key] for row in mine] for key in ("agents", "median_ms"))
        axis.plot(agents, ms, marker=marker, color=colour, lw=2, label=name.upper())
    n = np.array(sorted({row["agents"] for row in rows}), dtype=float)
    low = min(row["median_ms"] for row in rows)
    for power, style in ((1, ":"), (2, "--")):
        axis.plot(n, low * (n / n[0]) ** power, style, color="#999999", lw=1, label=f"slope of n^{power}")
    axis.set(xscale="log", yscale="log", xlabel="agents", ylabel="processor time of one update, ms")
    axis.set_ylim(0.7 * low, 1.6 * max(row["median_ms"] for row in rows))
    axis.set_xticks(n, [f"{value:.0f}" for value in n], minor=False)
    axis.minorticks_off()
    axis.legend(fontsize=9)
    figure.savefig(folder / "scaling.png", dpi=120)
    plt.close(figure)


def publish(rows: list[dict]) -> None:
    """Write the table between the two marks of BENCHMARKS.md."""
    agents = list(dict.fromkeys(row["agents"] for row in rows))
    cell = {(row["algorithm"], row["agents"]): f"{row['median_ms']:.1f}" for row in rows}
    lines = [
        f"| ms an update, torch {rows[0]['torch']} | " + " | ".join(f"n = {n}" for n in agents) + " |",
        "|---" * (len(agents) + 1) + "|",
    ]
    lines += [f"| {name.upper()} | " + " | ".join(cell[name, n] for n in agents) + " |" for name in ALGORITHMS]
    put("scaling", "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
