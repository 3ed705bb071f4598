"""Our speed beside public libraries' on the same work, in one run, in seconds of the processor, on one thread.

    OMP_NUM_THREADS=1 python tests/benchmarks/speed.py --quick     # minutes, prints
    OMP_NUM_THREADS=1 python tests/benchmarks/speed.py --publish   # -> docs/results/speed.csv, picture, BENCHMARKS.md
    OMP_NUM_THREADS=1 python tests/benchmarks/speed.py --parts memory whole --publish   # those rows alone anew

What one row compares takes turns within each repeat; a ratio is the median over the repeats of theirs by
ours. A turn is the mean of 5 updates with 5 agents, one with more. Random data, 8 observations, networks of 64-64
units. MADDPG: own networks, one continuous action; QMIX: shared, 32 x 25 steps, mixer 32; MAPPO: shared, 4 passes over
10 x 25 steps; 5 actions. "End to end" is a whole training loop in an environment that costs next to nothing: MADDPG
learns at every step of one copy, QMIX every 25 steps of one copy, MAPPO from 25 steps of 10 copies. What each library
does stands in peers.py. "Products alone" are the matrix products of our update, one after the other and nothing else.
Memory is the largest that a fresh process took which built that team and updated it twice. A library that is not
installed (requirements.txt) is left out, and one line says so; of 200 agents, only the fastest is asked.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(HERE)]
import peers  # noqa: E402
from pages import put  # noqa: E402
from scaling import NEVER, replaying, rolling  # noqa: E402

from core.base_agent import AgentTeam  # noqa: E402
from core.experiment.training import train  # noqa: E402
from core.maddpg import create_maddpg_agents  # noqa: E402
from core.mappo import create_mappo_agents  # noqa: E402
from core.qmix import create_qmix_agents  # noqa: E402

CSV = ROOT / "docs" / "results" / "speed.csv"
PICTURE = ROOT / "docs" / "images" / "speed.png"
SEEN, CHOICES, COPIES = 8, 5, 256  # observations an agent, discrete actions, copies of an environment
CASES = [("maddpg", 64, 5), ("maddpg", 1024, 5), ("qmix", 800, 5), ("mappo", 250, 5)]
GROWTH = [(name, batch, n) for n in (25, 100, 200) for name, batch in (("maddpg", 64), ("qmix", 800))]
LOOPS = {("maddpg", 64): 1, ("qmix", 800): 1, ("mappo", 250): 10}  # end to end: copies
HELD = [("maddpg", 64, 5), ("maddpg", 64, 100)]  # whose memory is looked at
MANY, FASTEST = 100, "BenchMARL"  # of more agents than that, the fastest library alone
OURS, PRODUCTS = "ours", "products alone"
Timed = dict[str, Callable[[], float]]  # whose time -> a function that does it once and returns its seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 repeats, no 100 agents, neither memory nor main.py")
    parser.add_argument("--repeats", type=int, default=7, help="timed turns of each row (default 7, at least 5)")
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="these alone (default: all)"
    )
    parser.add_argument("--publish", action="store_true", help="write speed.csv, the picture and docs/BENCHMARKS.md")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error("--repeats: 5 or more, since medians are reported")
    if options.publish and options.quick:
        parser.error("--publish needs the whole run, without --quick")
    torch.set_num_threads(1)
    for part in options.parts:
        if options.quick and part in ("memory", "whole", "rehearsal"):
            continue
        rows = [{"part": part, **row} for row in PARTS[part](options.quick, 5 if options.quick else options.repeats)]
        if options.publish:  # each part as soon as it is there
            write([*(row for row in read() if row["part"] != part), *rows])
    if options.publish:
        put("speed", tables(read()))
        draw(read())
    return 0


def of_updates(quick: bool, repeats: int) -> list[dict]:
    rows = []
    for algorithm, batch, agents in CASES + [case for case in GROWTH if not quick or case[2] < 100]:
        of, each = {"agents": agents, "batch": batch}, max(1, 25 // agents)
        rows += compared(f"{algorithm} update", updates(algorithm, batch, agents), repeats, of, each)
    return rows


def of_loops(quick: bool, repeats: int) -> list[dict]:
    rows = []
    for algorithm, batch in LOOPS:
        rows += compared(f"{algorithm} end to end", loops(algorithm, batch, 5), repeats, {"agents": 5, "batch": batch})
    return rows


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
        ms = [1000 * of_all(taken) for of_all in (median, min, max)]
        rows.append(row_of(what, name, "ms", *ms, ratio=ratio, repeats=repeats, each=each, **(of or {})))
        print(f"{what:17s} {of or ''}  {name:14s} {ms[0]:10.2f} ms   {ratio:6.2f} x {first}", flush=True)
    return rows


def row_of(what: str, who: str, unit: str, middle: float, low: float, high: float, **of) -> dict:
    """A row of the CSV."""
    row = {"what": what, "agents": of.get("agents", ""), "batch": of.get("batch", ""), "who": who}
    row |= {"version": metadata.version(peers.PACKAGES[who]) if who in peers.PACKAGES else "", "unit": unit}
    row |= {"median": round(middle, 3), "fastest": round(low, 3), "slowest": round(high, 3)}
    row |= {"ratio": round(of.get("ratio", 1.0), 2), "repeats": of.get("repeats", 1), "each": of.get("each", 1)}
    return row | {"threads": 1, "torch": torch.__version__}


# --- Updates ----------------------------------------------------------------------------------------------------------


def updates(algorithm: str, batch: int, agents: int) -> Timed:
    """This update by everyone who has it."""
    ours = our_update(algorithm, batch, agents)
    found = {OURS: ours, PRODUCTS: products_of(ours)}
    asked = {FASTEST: peers.MAKERS[FASTEST]} if agents > MANY else peers.MAKERS
    return found | {name: peers.timed(run) for name, run in installed(asked, algorithm, batch, agents)}


def installed(makers: dict[str, Callable], algorithm: str, batch: int, agents: int, *more: int) -> Iterator[tuple]:
    """Name and function of each library that is there and has the algorithm."""
    for name, maker in makers.items():
        try:
            run = maker(algorithm, batch, agents, SEEN, CHOICES, *more)
        except ImportError as error:
            if name not in LEFT_OUT:
                print(f"{name} is left out: {error}")
            LEFT_OUT.add(name)
            continue
        if run is not None:
            yield name, run


LEFT_OUT: set[str] = set()  # said once


def team(algorithm: str, batch: int, agents: int, **more) -> AgentTeam:
    """Ours, with what the comparison sets."""
    if algorithm == "maddpg":
        return create_maddpg_agents(SEEN, 1, agents, {"batch_size": batch, "seed": 0, **more})
    if algorithm == "qmix":
        return create_qmix_agents(SEEN, CHOICES, agents, {"batch_size": batch, "mixing_width": 32, "seed": 0, **more})
    return create_mappo_agents(SEEN, CHOICES, agents, {"rollout_length": batch // 10, "epochs": 4, "seed": 0})


def our_update(algorithm: str, batch: int, agents: int) -> Callable[[], float]:
    ours = team(algorithm, batch, agents, learning_starts=NEVER)
    return rolling(ours) if algorithm == "mappo" else replaying(ours)


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


# --- End to end -------------------------------------------------------------------------------------------------------


class Noise:
    """An environment that costs next to nothing: observations drawn once, episodes of 25 steps."""

    def __init__(self, agents: int, copies: int, discrete: bool):
        looks = np.random.default_rng(0).standard_normal((peers.EPISODE + 1, copies, agents, SEEN))
        self.looks, self.rewards = looks.astype(np.float32), np.ones((copies, agents), np.float32)
        self.num_envs, self.num_agents, self.discrete_actions = copies, agents, discrete
        self.observation_space_size, self.action_space_size = SEEN, CHOICES if discrete else 1

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.t = 0
        return self.looks[0]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
        self.t += 1
        over = np.full(self.rewards.shape, self.t == peers.EPISODE)
        return self.looks[self.t], self.rewards, over, {"truncated": over}


def loops(algorithm: str, batch: int, agents: int, rounds: int = 4) -> Timed:
    """A step of one copy, the mean of `rounds` episodes of training, by everyone whose loop can be had simply."""
    copies, steps = LOOPS[algorithm, batch], rounds * peers.EPISODE
    more = {"learning_starts": 0, "buffer_size": 2000, "update_every": peers.EPISODE if algorithm == "qmix" else 1}
    ours, world = team(algorithm, batch, agents, **more), Noise(agents, copies, algorithm != "maddpg")
    runs = {OURS: lambda: train(world, ours, rounds * copies, progress=False)}
    runs |= dict(installed(peers.LOOPS, algorithm, batch, agents, steps))
    timed = {name: peers.timed(run) for name, run in runs.items()}
    return {name: lambda run=run: run() / (steps * copies) for name, run in timed.items()}


# --- Environments, imports, memory, the demos -------------------------------------------------------------------------


def environments() -> Timed:
    """One step of all copies, with random actions; the mean of the first 20 steps of an episode."""
    from banking.settings import make_env as banking
    from retail.settings import make_env as retail

    def stepping(env, actions: np.ndarray) -> Callable[[], float]:
        def run() -> float:
            env.reset(0)
            start = time.process_time()
            for _ in range(20):
                env.step(actions)
            return (time.process_time() - start) / 20

        return run

    rng, shop, routers = np.random.default_rng(0), retail(COPIES), banking(COPIES)
    orders = rng.random((COPIES, shop.num_agents, 1), dtype=np.float32)
    channels = rng.integers(routers.action_space_size, size=(COPIES, routers.num_agents))
    return {"retail": stepping(shop, orders), "banking": stepping(routers, channels)}


def imports() -> Timed:
    """A fresh Python each; torch alone is what an algorithm's file is set beside."""
    names = ("torch", "core.maddpg", "core.qmix", "core.mappo")
    commands = {name: [sys.executable, "-c", f"import {name}"] for name in names}

    def run(command: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=ROOT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return {name: lambda c=c: run(c) for name, c in commands.items()}


def memory(quick: bool, repeats: int) -> list[dict]:
    """Megabytes of a fresh process that did two updates."""
    rows = []
    for algorithm, batch, agents in HELD:
        own = None
        for who in (OURS, *peers.MAKERS):
            call = f"import speed; speed.hold({who!r}, {algorithm!r}, {batch}, {agents})"
            try:
                _, _, held = watched([sys.executable, "-W", "ignore", "-c", call])
            except ChildProcessError as error:
                print(f"{who} is left out: {error}")
                continue
            own = own or held
            of = {"agents": agents, "batch": batch, "ratio": held / own}
            rows.append(row_of(f"{algorithm} memory", who, "MB", held, held, held, **of))
            print(f"{algorithm} memory {of}  {who:14s} {held:8.0f} MB", flush=True)
    return rows


def hold(who: str, algorithm: str, batch: int, agents: int) -> None:
    """In a process of its own: update twice."""
    torch.set_num_threads(1)
    update = our_update(algorithm, batch, agents) if who == OURS else None
    update = update or peers.MAKERS[who](algorithm, batch, agents, SEEN, CHOICES)
    update()
    update()


def watched(command: list[str]) -> tuple[float, float, float]:
    """Seconds of the clock and of the processor, and megabytes of the largest process, of a command.

    A small process of its own starts it: what this one held at its peak would be counted for its children, too.
    """
    watch = f"import resource, subprocess, sys, time; t = time.perf_counter(); code = subprocess.call({command!r}, "
    watch += "stdout=subprocess.DEVNULL); u = resource.getrusage(resource.RUSAGE_CHILDREN); "
    watch += "print(time.perf_counter() - t, u.ru_utime + u.ru_stime, u.ru_maxrss / 1024); sys.exit(code)"
    told = subprocess.run([sys.executable, "-c", watch], cwd=HERE, capture_output=True, text=True)
    if told.returncode:
        raise ChildProcessError(told.stderr.strip().splitlines()[-1])
    wall, processor, held = map(float, told.stdout.split())
    return wall, processor, held


def demos(*flags: str) -> list[dict]:
    """`main.py` with these flags, once: wall clock, processor seconds, the largest process."""
    with tempfile.TemporaryDirectory() as out:
        wall, processor, held = watched([sys.executable, str(ROOT / "main.py"), *flags, "--out", out])
    what = f"main.py {' '.join(flags)}"
    print(f"{what:17s} {wall:.0f} s, of the processor {processor:.0f} s, the largest process {held:.0f} MB", flush=True)
    found = {"wall clock": ("s", wall), "processor": ("s", processor), "largest process": ("MB", held)}
    return [row_of(what, who, unit, value, value, value) for who, (unit, value) in found.items()]


PARTS = {
    "updates": of_updates,
    "loops": of_loops,
    "environments": lambda quick, repeats: compared("environment step", environments(), repeats, {"batch": COPIES}),
    "imports": lambda quick, repeats: compared("import", imports(), repeats),
    "memory": memory,
    "whole": lambda quick, repeats: demos("--all"),
    "rehearsal": lambda quick, repeats: demos("--all", "--fast"),
}


# --- What is kept -----------------------------------------------------------------------------------------------------


def read() -> list[dict]:
    with open(CSV, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict]) -> None:
    rows = sorted(rows, key=lambda row: list(PARTS).index(row["part"]))
    with open(CSV, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def tables(rows: list[dict]) -> str:
    """Markdown, from the rows as they stand in the CSV."""
    side_by_side = [row for row in rows if row["part"] in ("updates", "loops", "memory")]
    ours = {(row["what"], row["agents"], row["batch"]): row for row in side_by_side if row["who"] == OURS}
    others = list(dict.fromkeys(row["who"] for row in side_by_side if row["who"] != OURS))
    versions = {row["who"]: " ".join(filter(None, (row["who"], row["version"]))) for row in rows}
    lines = [f"| | agents | batch | ours | {' | '.join(versions[name] for name in others)} |"]
    lines.append("|---" * (4 + len(others)) + "|")
    for (what, agents, batch), own in ours.items():
        theirs = {
            row["who"]: row
            for row in side_by_side
            if (row["what"], row["agents"], row["batch"]) == (what, agents, batch)
        }
        cells = [f"{float(theirs[name]['ratio']):.2f}" if name in theirs else "" for name in others]
        algorithm, _, rest = what.partition(" ")
        value = float(own["median"])
        taken = f"{value:.{0 if own['unit'] == 'MB' else 1 if value >= 1 else 2}f} {own['unit']}"
        lines.append(f"| {algorithm.upper()} {rest} | {agents} | {batch} | {taken} | {' | '.join(cells)} |")
    lines += ["", "| | median | |", "|---|---|---|"]
    for row in rows:
        value, unit = float(row["median"]), row["unit"]
        if row["part"] == "environments":
            rate = f"{1000 * COPIES / value:,.0f} steps/s of {COPIES} copies together"
            lines.append(f"| {row['who']}, one step of all copies | {value:.2f} ms | {rate} |")
        if row["part"] == "imports":
            lines.append(f"| import {row['who']} | {value:.0f} ms | {float(row['ratio']):.2f} x torch alone |")
        if row["part"] in ("whole", "rehearsal"):
            lines.append(f"| {row['what']} | {value:.0f} {unit} | {row['who']} |")
    return "\n".join(lines) + "\n"


COLOURS = {
    OURS: ("#000000", "o"),
    PRODUCTS: ("#999999", "x"),
    "BenchMARL": ("#0072B2", "s"),
    "XuanCe": ("#E69F00", "^"),
    "AgileRL": ("#CC79A7", "D"),
}


def draw(rows: list[dict]) -> None:
    """Ratios with 5 agents, and how updates grow with agents."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, *right) = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained", width_ratios=(1.35, 1, 1))
    five = [row for row in rows if row["part"] in ("updates", "loops") and row["agents"] == "5"]
    cases = list(dict.fromkeys((row["what"], row["batch"]) for row in five))
    for who, (colour, marker) in COLOURS.items():
        mine = [row for row in five if row["who"] == who]
        places = [cases.index((row["what"], row["batch"])) for row in mine]
        left.plot([float(row["ratio"]) for row in mine], places, marker, color=colour, label=who, ls="none")
    left.axvline(1.0, color="#000000", lw=1)
    names = [f"{what.split()[0].upper()} {what.split(' ', 1)[1]}\nbatch {batch}" for what, batch in cases]
    left.set_yticks(range(len(cases)), names, fontsize=8)
    left.margins(y=0.08)
    left.invert_yaxis()
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20]
    left.set(xscale="log", xlabel="time, in times of ours, 5 agents (right of the line: slower)")
    left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    left.minorticks_off()
    left.grid(axis="x", color="#dddddd", lw=0.5)
    for axis, (algorithm, batch) in zip(right, (("maddpg", "64"), ("qmix", "800")), strict=True):
        updates = [row for row in rows if (row["what"], row["batch"]) == (f"{algorithm} update", batch)]
        for who, (colour, marker) in COLOURS.items():
            mine = [row for row in updates if row["who"] == who]
            at, ms = [int(row["agents"]) for row in mine], [float(row["median"]) for row in mine]
            axis.plot(at, ms, color=colour, marker=marker, lw=2 if who == OURS else 1)
        agents = sorted({int(row["agents"]) for row in updates})
        axis.set(xscale="log", yscale="log", xlabel="agents", ylabel="ms of processor an update")
        axis.set_title(f"{algorithm.upper()}, batch {batch}", fontsize=10)
        axis.set_xticks(agents, [str(n) for n in agents])
        axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=len(COLOURS), fontsize=9)
    figure.savefig(PICTURE, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
