"""What two processes bring, measured; what four and eight would, modelled from what was measured.

    OMP_NUM_THREADS=1 python tests/benchmarks/processes.py            # 4 minutes of two quiet cores, prints
    OMP_NUM_THREADS=1 python tests/benchmarks/processes.py --publish  # -> docs/results/processes.csv, BENCHMARKS.md

One round of episodes of the shipped training, with 16 copies of the environment and with eight times as many; MADDPG's
batch grows with them (256, 2048), MAPPO's is what the copies brought. P processes have a P-th of the copies and of the
batch each, so that together they do what one does. Times are of the clock, from the sixth part of an episode on; every
row is the median of `--repeats` runs, which take turns. The gradients' all-reduce is timed alone, in two processes that
wait for nothing else. The model: a step of P processes takes what it takes one process with a P-th of the work, which
is measured, and log2(P) times the exchange of two. It knows nothing of cores that share a cache or a memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
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

from banking import settings as banking  # noqa: E402
from core.base_agent import AgentTeam, Transition  # noqa: E402
from core.experiment.runs import distributed as ranks  # noqa: E402
from core.experiment.training import train  # noqa: E402
from retail import settings as retail  # noqa: E402

CSV = ROOT / "docs" / "results" / "processes.csv"
PROBLEMS = {"retail": (retail, "maddpg"), "banking": (banking, "mappo")}
COPIES, SIZES, MODELLED = 16, (1, 8), (2, 4, 8)  # copies, how many times as many, processes
NUMBERS = (1, 1_000, 10_000, 100_000, 1_000_000)  # in an all-reduce


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of every row (default 3)")
    parser.add_argument("--publish", action="store_true", help="write processes.csv and docs/BENCHMARKS.md")
    parser.add_argument("--work", nargs=3, metavar=("PROBLEM", "SIZE", "SHARE"), help="what each process is told")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.work:
        problem, size, share = options.work
        ranks.start("cpu")
        found = work(problem, int(size), int(share))
        if ranks.is_main():
            print(json.dumps(found), flush=True)
        ranks.finish()
        return 0
    rows = [row for problem in PROBLEMS for size in SIZES for row in measured(problem, size, options.repeats)]
    if options.publish:
        with open(CSV, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        put("processes", table(rows))
    return 0


# --- In each process --------------------------------------------------------------------------------------------------


def work(problem: str, size: int, share: int) -> dict:
    """A round with a `share`-th of the copies and of the batch: milliseconds a step, an update and an exchange."""
    settings, algorithm = PROBLEMS[problem]
    setting, copies = settings.SETTINGS[algorithm], COPIES * size // share
    changes = {"seed": 0}
    if algorithm == "maddpg":
        changes |= {"batch_size": setting.config["batch_size"] * size // share, "learning_starts": 0}
    env = settings.make_env(copies, seed=0, **setting.env)
    team = setting.team(env, changes)
    c, marks = team.config, watch(team)
    train(env, team, copies * ranks.world_size(), progress=False)
    begun, end = marks[len(marks) // 6 - 1], marks[-1]
    clock, learning, updates, steps = (after - before for before, after in zip(begun, end, strict=True))
    batch = c.batch_size if algorithm == "maddpg" else copies * c.rollout_length // c.minibatches
    found = {"batch": batch, "updates": updates / steps, "step": 1000 * clock / steps}
    found |= {"update": 1000 * learning / updates}
    return found | (exchange(team) if ranks.world_size() > 1 else {})


def watch(team: AgentTeam) -> list[tuple[float, float, int, int]]:
    """A list that grows with every step: the clock, the seconds spent in updates, how many there were, the steps."""
    marks, spent, observe, update = [], 0.0, team.observe, team.update

    def timed() -> dict[str, float]:
        nonlocal spent
        start = time.perf_counter()
        report = update()
        spent += time.perf_counter() - start
        return report

    def noted(transition: Transition) -> dict[str, float]:
        report = observe(transition)
        marks.append((time.perf_counter(), spent, team.updates, len(marks)))
        return report

    team.update, team.observe = timed, noted
    return marks


def exchange(team: AgentTeam) -> dict:
    """Milliseconds of what two processes tell each other: the gradients of an update; at each step, that they go on."""
    gradients = {name: [stack.flat.grad for stack in team.trained[name]] for name in team.trained}
    alone = {name: timed_alone(lambda of=of: ranks.average(of)) for name, of in gradients.items()}
    plain = [timed_alone(lambda of=of: ranks.average(of)) for of in ([torch.zeros(n)] for n in NUMBERS)]
    slope, start = np.polyfit([4 * n for n in NUMBERS], plain, 1, w=1 / np.array(plain))  # ms = start + slope * bytes
    found = {"exchange": alone["critic"] + alone["actor"] / getattr(team.config, "policy_delay", 1)}
    found |= {"agree": timed_alone(lambda: ranks.agreed(1, "steps")), "start": start, "gigabytes": 1e-6 / slope}
    return found | {"numbers": sum(tensor.numel() for of in gradients.values() for tensor in of)}


def timed_alone(run: Callable[[], object], times: int = 100) -> float:
    """The median milliseconds of `run`, which both processes begin together."""
    taken = []
    for _ in range(times):
        ranks.agreed(1, "steps")
        begun = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - begun))
    return median(taken)


# --- All of them ------------------------------------------------------------------------------------------------------


def measured(problem: str, size: int, repeats: int) -> list[dict]:
    """The rows of one training: one process and two as measured, then the model."""
    runs: dict = {run: [] for run in ((1, 1), (2, 2), *((1, share) for share in MODELLED))}  # processes, share
    for _ in range(repeats):
        for (processes, share), found in runs.items():
            found.append(launched(processes, problem, size, share))
    runs = {run: {name: median(of[name] for of in found) for name in found[0]} for run, found in runs.items()}
    one, two = runs[1, 1], runs[2, 2]
    rows = [(1, "measured", one["step"], one["update"]), (2, "measured", two["step"], two["update"])]
    for processes in MODELLED:
        alone, hops = runs[1, processes], math.log2(processes)
        step = alone["step"] + hops * (alone["updates"] * two["exchange"] + two["agree"])
        rows.append((processes, "modelled", step, alone["update"] + hops * two["exchange"]))
    of = {"problem": problem, "algorithm": PROBLEMS[problem][1], "copies": COPIES * size, "batch": int(one["batch"])}
    said = {"exchange_ms": round(two["exchange"], 3), "numbers": int(two["numbers"])}
    said |= {"start_ms": round(two["start"], 3), "gigabytes_s": round(two["gigabytes"], 2), "repeats": repeats}
    found = []
    for processes, how, step, update in rows:
        row = of | {"processes": processes, "how": how, "step_ms": round(step, 3), "update_ms": round(update, 3)}
        row |= {"steps_s": round(1000 * of["copies"] / step), "times": round(one["step"] / step, 2)}
        found.append(row | said | {"torch": torch.__version__})
        print(" ".join(f"{name} {value}" for name, value in found[-1].items()), flush=True)
    return found


def launched(processes: int, problem: str, size: int, share: int) -> dict:
    """What the first of so many processes found."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, "-W", "ignore", *launch, str(Path(__file__).resolve()), "--work"]
    said = subprocess.run([*command, problem, str(size), str(share)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Markdown, from the rows as they stand in the CSV."""
    head = ("", "copies", "batch", "processes", "steps/s", "ms an update", "of it exchange", "times one process")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        exchanged = math.log2(int(row["processes"])) * float(row["exchange_ms"])
        cells = [f"{row['problem']}, {row['algorithm'].upper()}", row["copies"], row["batch"]]
        cells += [f"{row['processes']}, {row['how']}", f"{int(row['steps_s']):,}", f"{float(row['update_ms']):.2f}"]
        cells += [f"{exchanged:.2f}", f"{float(row['times']):.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
