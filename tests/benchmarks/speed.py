"""Our speed beside public libraries' on the same work, in one run: read the ratios, times are of a loaded machine.

    OMP_NUM_THREADS=1 python tests/benchmarks/speed.py --quick     # a minute or two, prints
    OMP_NUM_THREADS=1 python tests/benchmarks/speed.py --publish   # -> docs/results/speed.csv, and BENCHMARKS.md

What one row compares takes turns within each repeat, on one thread; a ratio is the median over the repeats of theirs by
ours. A turn is the mean of 5 updates with 5 agents, one with more. Random data, 8 observations, networks of 64-64
units. MADDPG: own networks, one continuous action; QMIX: shared, 32 x 25 steps, mixer 32; MAPPO: shared, 4 passes over
10 x 25 steps; 5 actions. What each library does in its update stands in peers.py. "Products alone" are the matrix
products of our update, one after the other and nothing else. A library that is not installed (requirements.txt) is left
out, and one line says so.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
import peers  # noqa: E402
from scaling import NEVER, replaying, rolling  # noqa: E402

from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

CSV, PAGE = ROOT / "docs" / "results" / "speed.csv", ROOT / "docs" / "BENCHMARKS.md"
BEGIN, END = "<!-- speed:begin -->\n", "<!-- speed:end -->"
SEEN, CHOICES, COPIES = 8, 5, 256  # observations an agent, discrete actions, copies of an environment
CASES = [("maddpg", 64, 5), ("maddpg", 1024, 5), ("qmix", 800, 5), ("mappo", 250, 5)]
GROWTH = [(name, batch, n) for n in (25, 100) for name, batch in (("maddpg", 64), ("qmix", 800))]
OURS, PRODUCTS = "ours", "products alone"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 repeats, no 100 agents")
    parser.add_argument("--repeats", type=int, default=7, help="timed turns of each row (default 7, at least 5)")
    parser.add_argument("--publish", action="store_true", help="write speed.csv and the tables in docs/BENCHMARKS.md")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error("--repeats: 5 or more, since medians are reported")
    if options.publish and options.quick:
        parser.error("--publish needs the whole run, without --quick")
    torch.set_num_threads(1)
    repeats, rows = (5 if options.quick else options.repeats), []
    for algorithm, batch, agents in CASES + [case for case in GROWTH if not options.quick or case[2] < 100]:
        timed = updates(algorithm, batch, agents)
        rows += compared(
            f"{algorithm} update", timed, repeats, {"agents": agents, "batch": batch}, max(1, 25 // agents)
        )
    rows += compared("environment step", environments(), repeats, {"batch": COPIES})
    rows += compared("import", imports(), repeats)
    if options.publish:
        write(rows)
        publish(rows)
    return 0


Timed = dict[str, Callable[[], float]]  # whose time -> a function that does it once and returns its seconds


def compared(what: str, timed: Timed, repeats: int, of: dict | None = None, each: int = 1) -> list[dict]:
    """A row for each of `timed`, which take turns of the mean of `each` runs; the first is set beside the others."""
    first, seconds = next(iter(timed)), {name: [] for name in timed}
    for repeat in range(-2, repeats):  # the first two warm up
        for name, run in timed.items():
            taken = sum(run() for _ in range(each)) / each
            if repeat >= 0:
                seconds[name].append(taken)
    rows = []
    for name, taken in seconds.items():
        ratio = median(theirs / own for theirs, own in zip(taken, seconds[first], strict=True))
        ms = {f"{word}_ms": round(1000 * of_all(taken), 3) for word, of_all in SPREAD.items()}
        rows.append(
            {"what": what, "agents": "", "batch": "", **(of or {}), "who": name, "version": version(name), **ms}
        )
        rows[-1] |= {
            "ratio": round(ratio, 2),
            "repeats": repeats,
            "each": each,
            "threads": 1,
            "torch": torch.__version__,
        }
        print(f"{what:17s} {of or ''}  {name:14s} {ms['median_ms']:10.2f} ms   {ratio:6.2f} x {first}", flush=True)
    return rows


SPREAD = {"median": median, "fastest": min, "slowest": max}


def version(name: str) -> str:
    return metadata.version(peers.PACKAGES[name]) if name in peers.PACKAGES else ""


# --- Updates ----------------------------------------------------------------------------------------------------------


def updates(algorithm: str, batch: int, agents: int) -> Timed:
    """This update by everyone who has it."""
    ours = ADAPTERS[algorithm](batch, agents)
    found = {OURS: ours, PRODUCTS: products_of(ours)}
    for name, maker in peers.MAKERS.items():
        try:
            run = maker(algorithm, batch, agents, SEEN, CHOICES)
        except ImportError as error:
            if name not in LEFT_OUT:
                print(f"{name} is left out: {error}")
            LEFT_OUT.add(name)
            continue
        if run is not None:  # it has that algorithm
            found[name] = peers.timed(run)
    return found


LEFT_OUT: set[str] = set()  # said once


def maddpg(batch: int, agents: int) -> Callable[[], float]:
    return replaying(create_maddpg_agents(SEEN, 1, agents, {"batch_size": batch, "learning_starts": NEVER, "seed": 0}))


def qmix(batch: int, agents: int) -> Callable[[], float]:
    config = {"batch_size": batch, "mixing_width": 32, "learning_starts": NEVER, "seed": 0}
    return replaying(create_qmix_agents(SEEN, CHOICES, agents, config))


def mappo(batch: int, agents: int) -> Callable[[], float]:
    config = {"rollout_length": batch // 10, "epochs": 4, "seed": 0}
    return rolling(create_mappo_agents(SEEN, CHOICES, agents, config))


ADAPTERS = {"maddpg": maddpg, "qmix": qmix, "mappo": mappo}


class Products(TorchDispatchMode):
    """Keeps the operands of every matrix product while it is on."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if function.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm"):
            self.calls.append([operand.detach() for operand in arguments[-2:]])
        return function(*arguments, **(named or {}))


def products_of(update: Callable[[], float]) -> Callable[[], float]:
    """Times the matrix products of one `update` alone, on its own operands."""
    update()
    with Products() as noted:
        update()

    def multiply() -> None:
        for left, right in noted.calls:
            torch.matmul(left, right)

    return peers.timed(multiply)


# --- Environments and imports -----------------------------------------------------------------------------------------


def environments() -> Timed:
    """One step of all copies, with random actions; the mean of the first 20 steps of an episode."""
    from banking.settings import make_env as banking
    from retail.settings import make_env as retail

    def stepping(env, actions: np.ndarray) -> Callable[[], float]:
        def run() -> float:
            env.reset(0)
            start = time.perf_counter()
            for _ in range(20):
                env.step(actions)
            return (time.perf_counter() - start) / 20

        return run

    rng, shop, routers = np.random.default_rng(0), retail(COPIES), banking(COPIES)
    orders = rng.random((COPIES, shop.num_agents, 1), dtype=np.float32)
    channels = rng.integers(routers.action_space_size, size=(COPIES, routers.num_agents))
    return {"retail": stepping(shop, orders), "banking": stepping(routers, channels)}


def imports() -> Timed:
    """A fresh Python each; torch alone is what an algorithm's file is set beside."""
    names = ("torch", *(f"core.{name}" for name in ADAPTERS))
    commands = {name: [sys.executable, "-c", f"import {name}"] for name in names}
    return {name: peers.timed(lambda c=c: subprocess.run(c, cwd=ROOT, check=True)) for name, c in commands.items()}


# --- What is kept -----------------------------------------------------------------------------------------------------


def write(rows: list[dict]) -> None:
    with open(CSV, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def tables(rows: list[dict]) -> str:
    """Markdown, from the rows as they stand in the CSV."""
    ours = {(row["what"], row["agents"], row["batch"]): row for row in rows if row["who"] == OURS}
    others = list(dict.fromkeys(row["who"] for row in rows if "update" in row["what"] and row["who"] != OURS))
    versions = {row["who"]: " ".join(filter(None, (row["who"], row["version"]))) for row in rows}
    lines = [f"| update | agents | batch | ours, ms | {' | '.join(versions[name] for name in others)} |"]
    lines.append("|---" * (4 + len(others)) + "|")
    for (what, agents, batch), own in ours.items():
        theirs = {
            row["who"]: row for row in rows if (row["what"], row["agents"], row["batch"]) == (what, agents, batch)
        }
        cells = [f"{float(theirs[name]['ratio']):.2f}" if name in theirs else "" for name in others]
        name = what.removesuffix(" update").upper()
        lines.append(f"| {name} | {agents} | {batch} | {float(own['median_ms']):.1f} | {' | '.join(cells)} |")
    lines += ["", "| | median ms | |", "|---|---|---|"]
    for row in rows:
        ms = float(row["median_ms"])
        if row["what"] == "environment step":
            rate = f"{1000 * COPIES / ms:,.0f} steps/s of {COPIES} copies together"
            lines.append(f"| {row['who']}, one step of all copies | {ms:.2f} | {rate} |")
        if row["what"] == "import":
            lines.append(f"| import {row['who']} | {ms:.0f} | {float(row['ratio']):.2f} x torch alone |")
    return "\n".join(lines) + "\n"


def publish(rows: list[dict]) -> None:
    """Write the tables between the two marks of BENCHMARKS.md."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + tables(rows) + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
