"""All three algorithms on both problems with 5, 25, 100 and 200 agents: quality, time and memory of whole trainings.

    OMP_NUM_THREADS=1 python tests/benchmarks/many_agents.py             # 26 trainings, about half an hour of a core
    OMP_NUM_THREADS=1 python tests/benchmarks/many_agents.py --missing   # only what is not in the CSV yet
    OMP_NUM_THREADS=1 python tests/benchmarks/many_agents.py --publish   # no training: picture and table from the CSV

The medium problem n agents large: warehouses and routers repeat those of the preset, and what they share, the supplier
and the channels, grows with the demand and the traffic. Every training has the same number of episodes, the setting of
train.py but for CHANGES, and a process of its own, whose peak memory is read when the training ends. Then teams and the
rule to beat are judged on the same unseen episodes (seeds from 20,000; CHANGES were chosen with training seed 9 on
others). A row of docs/results/many_agents.csv is one training.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from pages import put  # noqa: E402

from banking.baselines import LocalIndex, tuned_rule  # noqa: E402
from banking.constants import PER_ROUTER, RoutingConstants  # noqa: E402
from core.experiment.evaluation import evaluate, interval  # noqa: E402
from core.experiment.training import train  # noqa: E402
from retail.baselines import order_up_to, tuned_parameters  # noqa: E402
from retail.constants import RetailConstants  # noqa: E402

AGENTS = (5, 25, 100, 200)
ALGORITHMS = ("maddpg", "mappo", "qmix")
AS_SHIPPED = ", as in train.py"
ALSO = [("banking", "maddpg" + AS_SHIPPED, n, 0) for n in (5, 25)]
LOOKS = {  # of a line: colour, shape, middle of its points
    "maddpg": ("#0072B2", "o-", "#0072B2"),
    "mappo": ("#E69F00", "s-", "#E69F00"),
    "qmix": ("#009E73", "^-", "#009E73"),
    "maddpg" + AS_SHIPPED: ("#0072B2", "o:", "white"),
}
EPISODES = {"retail": 400, "banking": 60}  # of a training
STEPS = {"retail": RetailConstants().horizon, "banking": RoutingConstants().episode_steps}  # of an episode
JUDGED = {"retail": 200, "banking": 40}  # unseen episodes
UNSEEN = 20_000  # seed of the first of them
# An update of MADDPG's critics takes time and memory as n squared: fewer and smaller ones, and so larger steps, for
# every n. The other two have the settings of train.py. MADDPG with its own, where that is a matter of minutes, tells
# apart what the algorithm cannot do and what so few updates cannot.
FEWER = {"batch_size": 32, "learning_rate": 3e-3}
CHANGES = {
    ("retail", "maddpg"): FEWER | {"updates_per_step": 1, "policy_delay": 1, "tau": 0.03},
    ("banking", "maddpg"): FEWER | {"update_every": 5, "tau": 0.1, "critic_summary": 8},
}
UNITS = {"retail": "$", "banking": "minus reward"}  # of an agent's episode: its share of the team's cost
RESULTS, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=EPISODES, default=list(EPISODES))
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS, help=f"team sizes (default {AGENTS})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds (default: 0)")
    parser.add_argument("--missing", action="store_true", help="go on with the CSV: train only what is not in it")
    parser.add_argument("--publish", action="store_true", help="train nothing: picture and table of BENCHMARKS.md")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # problem algorithm agents seed
    options = parser.parse_args()
    path = RESULTS / "many_agents.csv"
    if options.one:
        print(json.dumps(train_one(*options.one[:2], int(options.one[2]), int(options.one[3]))))
        return 0
    if options.publish:
        draw(pd.read_csv(path))
        put("many_agents", table(pd.read_csv(path)))
    else:
        train_all(options, path)
    print(table(pd.read_csv(path)), end="")
    return 0


def train_all(options: argparse.Namespace, path: Path) -> None:
    """One training after the other, small teams first, each in a process of its own; the CSV is written after each."""
    rows = pd.read_csv(path).to_dict("records") if options.missing and path.exists() else []
    done = {(row["problem"], row["algorithm"], row["agents"], row["training_seed"]) for row in rows}
    chosen = itertools.product(options.agents, options.seeds, options.problems, options.algorithms)
    cells = [(problem, algorithm, n, seed) for n, seed, problem, algorithm in chosen] + ALSO
    for cell in (cell for cell in cells if cell not in done):
        command = [sys.executable, __file__, "--one", *map(str, cell)]
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(found.strip(), flush=True)
        rows.append(json.loads(found))
        pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")


# --- the problems with n agents ---------------------------------------------------------------------------------------


def constants(problem: str, n: int) -> dict[str, Any]:
    """What to give `make_env` for n agents like those of the medium preset, and as much to share for each of them."""
    preset, own, amount, shared = {
        "retail": (RetailConstants(), ("mean_demand", "lead_times", "storage"), "mean_demand", "supplier_capacity"),
        "banking": (RoutingConstants(), PER_ROUTER, "arrival_rates", "channel_rates"),
    }[problem]
    repeated = {name: tuple(np.resize(getattr(preset, name), n).tolist()) for name in own}
    factor = sum(repeated[amount]) / sum(getattr(preset, amount))
    return repeated | {shared: (factor * np.asarray(getattr(preset, shared))).tolist()}


def rule_to_beat(problem: str, env: Any) -> Any:
    """The rule to beat with the levels tuned on the preset: warehouses repeat theirs. A channel that is f times as fast
    has f times as many transactions for each of a router's own, so these stand for f times as many."""
    if problem == "retail":
        levels = tuned_parameters("medium")["adaptive_joint"]
        return order_up_to(env, {name: np.resize(values, env.num_agents) for name, values in levels.items()})
    tuned, k = tuned_rule("local index", "medium"), env.constants
    levels = tuned.levels(list(k.channel_names))
    for name, rate, before in zip(k.channel_names, k.channel_rates, tuned.constants.channel_rates, strict=True):
        levels["own_work"][name] *= rate / before
    return LocalIndex.from_levels(k, levels)


# --- one training -----------------------------------------------------------------------------------------------------


def train_one(problem: str, algorithm: str, n: int, seed: int) -> dict[str, Any]:
    """Train one team and judge it -> its row. Costs are an agent's share of an episode's."""
    import resource  # not on Windows, where table and picture can be made all the same

    torch.set_num_threads(1)
    settings = importlib.import_module(f"{problem}.settings")
    setting = settings.SETTINGS[algorithm.removesuffix(AS_SHIPPED)]
    world, episodes = constants(problem, n), EPISODES[problem]
    changes = {"seed": seed, **CHANGES.get((problem, algorithm), {})}
    if algorithm != "mappo":  # room for all that is seen: the usual 100,000 steps would be gigabytes, and stay empty
        changes["buffer_size"] = episodes * STEPS[problem]
    env = settings.make_env(setting.num_envs, **setting.env, **world)
    team, fresh = setting.team(env, changes), setting.team(env, changes)
    learning = timed(team)
    started = time.process_time()
    train(env, team, episodes, seed, progress=False)
    seconds, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    test = settings.make_env(20, **world)
    policies = {"untrained": (fresh, False), "trained": (team, True), "rule": (rule_to_beat(problem, test), True)}
    costs = {
        name: -evaluate(test, policy, JUDGED[problem], UNSEEN, greedy=greedy)["team_return"].to_numpy() / n
        for name, (policy, greedy) in policies.items()
    }
    gain = interval(costs["untrained"] - costs["trained"])
    row = {"problem": problem, "algorithm": algorithm, "agents": n, "training_seed": seed, "episodes": episodes}
    row |= {name: float(values.mean()) for name, values in costs.items()}
    row |= {"gain": gain.mean, "gain_half_width": gain.half_width, "evaluated": gain.count}
    row |= {"cpu_seconds": seconds, "updates": team.updates, "ms_an_update": 1000 * sum(learning) / team.updates}
    row |= {"peak_mb": peak, "torch": torch.__version__}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def timed(team: Any) -> list[float]:
    """Processor seconds of each call of `team.update` from now on."""
    seconds, update = [], team.update

    def update_and_note(*given: Any) -> dict[str, float]:
        started = time.process_time()
        report = update(*given)
        seconds.append(time.process_time() - started)
        return report

    team.update = update_and_note
    return seconds


# --- table and picture ------------------------------------------------------------------------------------------------


def table(rows: pd.DataFrame) -> str:
    """Markdown, a row a training; a gain's interval is over unseen episodes."""
    lines = [
        "| cost an agent | algorithm | agents | seed | untrained | trained | gain | rule to beat | training, s "
        "| ms an update | updates | peak, MB |",
        "|---" * 12 + "|",
    ]
    keys = ["problem", "algorithm", "agents", "training_seed"]
    for row in rows.sort_values(keys, ascending=[False, True, True, True]).itertuples():
        digits = 1 if row.problem == "retail" else 0
        costs = [f"{value:.{digits}f}" for value in (row.untrained, row.trained)]
        costs += [f"{row.gain:.{digits}f} ± {row.gain_half_width:.{digits}f}", f"{row.rule:.{digits}f}"]
        cells = [f"{row.problem}, {UNITS[row.problem]}", shown(row.algorithm), row.agents, row.training_seed, *costs]
        cells += [f"{row.cpu_seconds:.0f}", f"{row.ms_an_update:.1f}", row.updates, f"{row.peak_mb:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def shown(algorithm: str) -> str:
    """Its name in table and picture."""
    return algorithm.replace("maddpg", "MADDPG").replace("mappo", "MAPPO").replace("qmix", "QMIX")


def draw(rows: pd.DataFrame) -> None:
    """docs/images/many_agents.png: a row of panels a problem; means of trainings against the number of agents."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    from core.experiment.reporting.plotting import GREY

    columns = {"trained": "cost an agent, {}", "cpu_seconds": "processor time, s", "peak_mb": "peak memory, MB"}
    titles = ("greedy, on unseen episodes", "time of the training", "memory of the training")
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.6), layout="constrained")
    for panels, problem in zip(grid, EPISODES, strict=True):
        means = rows[rows["problem"] == problem].groupby(["algorithm", "agents"]).mean(numeric_only=True).reset_index()
        for axes, title, (column, label) in zip(panels, titles, columns.items(), strict=True):
            for name, (colour, look, middle) in LOOKS.items():
                own = means[means["algorithm"] == name]
                axes.plot(own["agents"], own[column], look, color=colour, mfc=middle, lw=1.8, label=shown(name))
            if column == "trained":
                common = means.groupby("agents").mean(numeric_only=True)
                axes.plot(common.index, common["untrained"], ":", color=GREY, lw=1.5, label="untrained")
                axes.plot(common.index, common["rule"], "--", color="black", lw=1.3, label="rule to beat")
            ticks = sorted(set(means["agents"]))
            axes.set(xscale="log", yscale="log", ylabel=label.format(UNITS[problem]))
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.minorticks_off()
            axes.set_title(f"{problem}: {title}", loc="left", fontsize=10)
            axes.grid(axis="y", color="#DDDDDD", lw=0.8)
    for axes in grid[-1]:
        axes.set_xlabel("agents")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(IMAGES / "many_agents.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
