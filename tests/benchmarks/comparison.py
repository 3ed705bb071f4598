"""The comparison behind docs/BENCHMARKS.md: algorithms x problems x difficulties x training seeds, same budget.

    python tests/benchmarks/comparison.py                                  # everything, hours on a laptop
    python tests/benchmarks/comparison.py --difficulties medium --jobs 2   # the medium tables
    python tests/benchmarks/comparison.py --tables                         # print the tables from the CSV again
    python tests/benchmarks/comparison.py --publish                        # put them into the documents

Every training is the one of train.py, with its SETTINGS; every policy is judged greedily on the same unseen episodes
(seeds from 10,000). A row of docs/results/comparison.csv is one policy and one training seed: means over the episodes.
What is in the file already is not trained again. `--control` trains with centralized=False: IDDPG, IPPO, IQL.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from pages import put  # noqa: E402

RESULTS = ROOT / "docs" / "results"
CHOICES = {
    "problems": ["retail", "banking"],
    "algorithms": ["maddpg", "mappo", "qmix"],
    "difficulties": ["medium", "easy", "hard"],
}
# The hyper-parameters of train.py were chosen on medium, on validation episodes, with training seeds 0 to 5. So other
# trainings are counted there.
SEEDS = {"medium": (10, 11, 12, 13, 14), "easy": (0, 1, 2, 3, 4), "hard": (0, 1, 2, 3, 4)}
EPISODES = {"retail": 1000, "banking": 200}  # of training: the demos' budget
COLUMNS = {
    "retail": {"total_cost": "cost, $", "stockouts": "stockouts, % of demand", "units_moved": "units moved"},
    "banking": {
        "latency_ms": "latency, ms",
        "risk_violation_percent": "risk > 5 %, % of steps",
        "cost_per_transaction": "$ a transaction",
        "team_return": "team reward",
    },
}
SORTED_BY = {"retail": "total_cost", "banking": "team_return"}
BASELINE = {"retail": "base-stock, tuned jointly", "banking": "size threshold"}  # gap closed: 0 %
TO_BEAT = {"retail": "adaptive base-stock, tuned jointly", "banking": "local index"}  # the best that acts locally
KNOWN = "-known"  # ending of a name: learnt from known consequences (Setting.known)
WITH_KNOWN = {"retail": ["maddpg"], "banking": ["mappo"]}  # who has that form
BEST = {"banking": "global index"}  # sees what no router does; the way there from TO_BEAT is a column of its own
OWN = "-own"  # ending of a control's name: its critic sees the own observation alone
FRONT_PAGE = {
    "retail": [
        "untrained maddpg",
        "maddpg",
        "maddpg-known",
        "rule: random",
        "rule: base-stock, newsvendor",
        "rule: base-stock, tuned jointly",
        "rule: adaptive base-stock, tuned jointly",
    ],
    "banking": [
        "untrained mappo",
        "mappo",
        "mappo-known",
        "rule: round robin",
        "rule: join shortest queue, own",
        "rule: size threshold",
        "rule: local index",
        "rule: global index",
    ],
}
LINES = {
    "maddpg": "#0072B2",
    "maddpg-known": "#56B4E9",
    "mappo": "#E69F00",
    "mappo-known": "#D55E00",
    "qmix": "#009E73",
}  # of learning curves
PARTS = 40  # of a training: a point of its curve each
KEYS = ["problem", "difficulty", "policy", "training_seed"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, values in CHOICES.items():
        parser.add_argument(f"--{name}", nargs="+", choices=values, default=values, help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="training seeds (default: 10-14 on medium, 0-4 elsewhere)")
    parser.add_argument("--episodes", type=int, default=2000, help="evaluation episodes (default: 2000)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--control", action="store_true", help="critics that see the own observation alone")
    parser.add_argument("--tables", action="store_true", help="only print the tables")
    parser.add_argument("--publish", action="store_true", help="put the tables into BENCHMARKS.md and README.md")
    parser.add_argument("--one", nargs=5, metavar="X", help=argparse.SUPPRESS)  # problem difficulty policy seed file
    options = parser.parse_args(argv)
    if options.one:
        run_one(*options.one[:3], options.one[3], Path(options.one[4]), options.episodes)
        return
    if not (options.tables or options.publish):
        run_all(options)
    print(tables())
    if options.publish:
        put("comparison", tables())
        put("results", tables(FRONT_PAGE), "README.md")
        put("control", control_table())
        draw_curves()


def run_all(options: argparse.Namespace) -> None:
    """Every missing cell in a process of its own, `--jobs` at a time; a finished cell is kept at once."""
    RESULTS.mkdir(exist_ok=True)
    done = set()
    if table_path().exists():
        known = read()
        known = known[known["evaluated"] == options.episodes][KEYS]
        done = {tuple(map(str, row)) for row in known.itertuples(index=False)}
    policies = ["rules", *(name + (OWN if options.control else "") for name in options.algorithms)]
    policies += [] if options.control else [name + KNOWN for name in options.algorithms]
    cells = []
    for difficulty in options.difficulties:
        seeds = options.seeds or SEEDS[difficulty]
        for policy, seed, problem in itertools.product(policies, seeds, options.problems):
            if policy.endswith(KNOWN) and policy.removesuffix(KNOWN) not in WITH_KNOWN[problem]:
                continue
            if policy != "rules" or seed == seeds[0]:
                cells.append((problem, difficulty, policy, str(seed)))
    rules_done = {(p, d) for p, d, policy, _ in done if policy.startswith("rule: ")}
    waiting = [c for c in cells if c not in done and not (c[2] == "rules" and c[:2] in rules_done)]
    running: list[tuple[subprocess.Popen, Path]] = []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            cell = waiting.pop(0)
            part = RESULTS / ("-".join(cell) + ".part.csv")
            command = [sys.executable, __file__, "--episodes", str(options.episodes), "--one", *cell, str(part)]
            running.append((subprocess.Popen(command), part))
        for process, part in [entry for entry in running if entry[0].poll() is not None]:
            running.remove((process, part))
            if process.returncode:
                raise SystemExit(f"{part.name.removesuffix('.part.csv')} failed, see above; what was finished is kept")
            keep(part)
        time.sleep(0.2)


def run_one(problem_name: str, difficulty: str, policy: str, seed: str, part: Path, episodes: int) -> None:
    """One cell -> a small CSV beside the table."""
    import pandas as pd
    import torch

    from core.experiment.evaluation import evaluate
    from core.experiment.training import train

    torch.set_num_threads(1)
    if problem_name == "retail":
        from retail.settings import SETTINGS, make_env, rules
    else:
        from banking.settings import SETTINGS, make_env, rules
    judge = make_env(250, difficulty)
    rows, started = [], time.perf_counter()

    def judged(name: str, actor, training_seed: int, greedy: bool = True, seconds: float = 0.0) -> None:
        means = evaluate(judge, actor, episodes, greedy=greedy).drop(columns=["episode", "seed"]).mean()
        cell = {"problem": problem_name, "difficulty": difficulty, "policy": name, "training_seed": training_seed}
        cell |= {"evaluated": episodes, "training_seconds": round(seconds, 1)}
        rows.append(cell | means.to_dict())

    if policy == "rules":
        for name, rule in rules(judge).items():
            judged(f"rule: {name}", rule, -1)
    else:
        algorithm, own = policy.removesuffix(OWN).removesuffix(KNOWN), policy.endswith(OWN)
        setting = SETTINGS[algorithm].known if policy.endswith(KNOWN) else SETTINGS[algorithm]
        env = make_env(setting.num_envs, difficulty, **setting.env)
        team = setting.team(env, {"seed": int(seed), "centralized": not own})
        if policy == algorithm:
            judged(f"untrained {algorithm}", team, int(seed), greedy=False)
        started = time.perf_counter()
        history = train(env, team, EPISODES[problem_name], int(seed), progress=False)
        judged(policy, team, int(seed), seconds=time.perf_counter() - started)
        curve(history, rows[-1]).to_csv(curve_part(part), index=False)
    pd.DataFrame(rows).to_csv(part, index=False)


def curve(history, cell: dict):
    """The training itself, with exploration: means over each fortieth of the episodes."""
    metric, size = SORTED_BY[cell["problem"]], len(history) // PARTS
    part = history["episode"] // size
    table = history[metric].groupby(part).mean().rename("value").rename_axis("until").reset_index()
    return table.assign(until=(table["until"] + 1) * size, **{name: cell[name] for name in KEYS})


def curve_part(part: Path) -> Path:
    return part.with_suffix(".curve.csv")


def table_path() -> Path:
    return RESULTS / "comparison.csv"


def curves_path() -> Path:
    return RESULTS / "curves.csv"


def read():
    """The table; stockouts also in % of the demand of all episodes, which is the same for every policy."""
    import pandas as pd

    from retail.constants import RetailConstants

    table = pd.read_csv(table_path())
    demand = table.groupby(["problem", "difficulty", "evaluated"])["demand"].transform("max")
    return table.assign(stockouts=100.0 * table["stockout_cost"] / (RetailConstants().stockout_cost * demand))


def counted():
    """The trainings that the comparison shows, and the rules."""
    table = read()
    seeds = table["difficulty"].map(SEEDS)
    there = [k < 0 or k in those for k, those in zip(table["training_seed"], seeds, strict=True)]
    return table[there]


def keep(part: Path) -> None:
    """Add a finished cell to the table, and its learning curve to the curves."""
    import pandas as pd

    lock = table_path().with_suffix(".lock")  # several of these scripts may run at a time
    while True:
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            time.sleep(0.1)
    try:
        for path, new, keys in ((curves_path(), curve_part(part), [*KEYS, "until"]), (table_path(), part, KEYS)):
            if not new.exists():
                continue
            known = [pd.read_csv(path)] if path.exists() else []
            whole = pd.concat([*known, pd.read_csv(new)]).drop_duplicates(keys, keep="last").sort_values(keys)
            whole = whole[[*keys, *(name for name in whole if name not in keys)]]
            temporary = path.with_suffix(".tmp")
            whole.to_csv(temporary, index=False)
            temporary.replace(path)
            new.unlink()
    finally:
        lock.unlink()


def tables(only: dict[str, list[str]] | None = None) -> str:
    """Markdown: a table a problem and difficulty; over training seeds, mean and 95 % t interval."""
    from core.experiment.evaluation import half_width

    whole, lines = counted(), []
    whole = whole[~whole["policy"].str.endswith(OWN)]
    for (problem, difficulty), cell in whole.groupby(["problem", "difficulty"], sort=False):
        columns = COLUMNS[problem]
        if only is not None and difficulty != "medium":
            continue
        gap, means = gap_of(problem, difficulty, cell)
        headers = " | ".join(columns.values())
        lines += ["", f"**{problem}, {difficulty}**", ""]
        gaps = f"gap closed, % | beyond {TO_BEAT[problem].split(',')[0]}, %"
        best = BEST.get(problem)
        gaps += f" | from there to {best}, %" if best else ""
        lines.append(f"| policy | {headers} | {gaps} | training, s | seeds |")
        lines.append("|---" * (len(columns) + 5 + bool(best)) + "|")
        order = cell.groupby("policy")[SORTED_BY[problem]].mean().sort_values(ascending=problem == "banking").index
        for policy in order:
            if only is not None and policy not in only[problem]:
                continue
            rows = cell[cell["policy"] == policy]
            texts = []
            for name in columns:
                spread = f" ± {half_width(rows[name].to_numpy()):.{digits(name)}f}" if len(rows) > 1 else ""
                texts.append(f"{rows[name].mean():.{digits(name)}f}{spread}")
            value = rows[SORTED_BY[problem]].mean()
            texts += closed(gap, value, means.get(TO_BEAT[problem]))
            if best:
                way = means[best] - means[TO_BEAT[problem]]
                texts.append(f"{round(100 * (value - means[TO_BEAT[problem]]) / way)}")
            learnt = not policy.startswith("rule: ")
            seconds = f"{rows['training_seconds'].mean():.0f}" if learnt and rows["training_seconds"].any() else ""
            name = policy.replace(KNOWN, ", known consequences")
            shown = f"**{name}**" if learnt else policy.removeprefix("rule: ")
            lines.append(f"| {shown} | " + " | ".join(texts) + f" | {seconds} | {len(rows) if learnt else ''} |")
        if gap is not None:
            by = SORTED_BY[problem]
            value = f"{gap.bound:.{digits(by)}f} ± {gap.half_width:.{digits(by)}f}"
            texts = [value if name == by else "" for name in columns] + closed(gap, gap.bound, means[TO_BEAT[problem]])
            texts += [""] if best else []
            lines.append(f"| *clairvoyant bound* | {' | '.join(texts)} |  |  |")
    return "\n".join(lines).strip() + "\n"


def control_table() -> str:
    """Markdown: each algorithm beside itself with critics that see the own observation alone, on the same seeds."""
    from core.experiment.evaluation import half_width

    whole = counted()
    whole = whole[whole["difficulty"] == "medium"].set_index("training_seed")
    lines = [
        "| medium | algorithm | centralized | own observation alone | difference | seeds |",
        "|---" * 6 + "|",
    ]
    for problem, metric in SORTED_BY.items():
        cell = whole[whole["problem"] == problem]
        for algorithm in sorted(name.removesuffix(OWN) for name in cell["policy"].unique() if name.endswith(OWN)):
            own, all_seen = (cell.loc[cell["policy"] == name, metric] for name in (algorithm + OWN, algorithm))
            change = (own - all_seen).dropna().to_numpy()  # paired: the same training seeds, the same unseen episodes
            texts = [f"{values.loc[own.index].mean():.{digits(metric)}f}" for values in (all_seen, own)]
            texts.append(f"{change.mean():+.{digits(metric)}f} ± {half_width(change):.{digits(metric)}f}")
            label = f"{problem}, {COLUMNS[problem][metric]}"
            lines.append(f"| {label} | {algorithm.upper()} | {' | '.join(texts)} | {len(change)} |")
    return "\n".join(lines) + "\n"


def rule_curves():
    """The rule to beat on the training episodes of medium, as curves.csv has the teams: kept in curves_rule.csv.

    `shared`: so many neighbouring episodes have one seed, as in the trainings of a team with that `episodes_per_seed`.
    """
    import numpy as np
    import pandas as pd

    from core.experiment.evaluation import evaluate
    from core.experiment.training import episode_seeds

    path = RESULTS / "curves_rule.csv"
    if path.exists():
        return pd.read_csv(path)
    rows = []
    for problem, metric in SORTED_BY.items():
        settings, count = importlib.import_module(f"{problem}.settings"), EPISODES[problem]
        env = settings.make_env(min(count, 125))
        for seed in SEEDS["medium"]:
            rule, first = settings.rules(env)[TO_BEAT[problem]], episode_seeds(seed, 0, 1)[0]
            values = evaluate(env, rule, count, first)[metric].to_numpy()
            for shared in (1, 2):
                met = values[np.arange(count) // shared * shared].reshape(PARTS, -1).mean(axis=1)
                until = count // PARTS * (1 + np.arange(PARTS))
                rows += [(problem, TO_BEAT[problem], seed, shared, *pair) for pair in zip(until, met, strict=True)]
    table = pd.DataFrame(rows, columns=["problem", "rule", "training_seed", "shared", "until", "value"])
    table.round(4).to_csv(path, index=False)
    return table


def distances(problem: str, policy: str):
    """(parts, trainings): how much dearer the team's training episodes were than the same ones by the rule to beat."""
    import pandas as pd

    algorithm, known = policy.removesuffix(KNOWN), policy.endswith(KNOWN)
    settings = importlib.import_module(f"{problem}.settings")
    setting = settings.SETTINGS[algorithm].known if known else settings.SETTINGS[algorithm]
    shared = setting.team(settings.make_env(2, **setting.env), {}).episodes_per_seed
    whole, rule = pd.read_csv(curves_path()), rule_curves()
    team = whole[(whole["problem"] == problem) & (whole["difficulty"] == "medium") & (whole["policy"] == policy)]
    rule = rule[(rule["problem"] == problem) & (rule["shared"] == shared)]
    team, rule = (table.pivot(index="until", columns="training_seed", values="value") for table in (team, rule))
    return (team[rule.columns] - rule) * (1.0 if problem == "retail" else -1.0)  # less is better on both axes


def draw_curves() -> None:
    """docs/images/curves.png: the trainings on medium against the rule to beat on the same episodes."""
    import matplotlib

    from core.experiment.evaluation import half_width

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axes, (problem, unit) in zip(
        grid, {"retail": "$ an episode", "banking": "minus team reward"}.items(), strict=True
    ):
        for policy, colour in LINES.items():
            if policy.endswith(KNOWN) and policy.removesuffix(KNOWN) not in WITH_KNOWN[problem]:
                continue
            seeds = distances(problem, policy)
            mean, half = seeds.mean(axis=1), seeds.apply(lambda row: half_width(row.to_numpy()), axis=1)
            name = policy.removesuffix(KNOWN).upper() + (", known consequences" if policy.endswith(KNOWN) else "")
            axes.plot(mean.index, mean, color=colour, lw=2, label=f"{name}, {seeds.shape[1]} trainings")
            axes.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.2, lw=0)
        axes.axhline(0.0, color="#444444", lw=1.3, ls=(0, (5, 2)), label=f"{TO_BEAT[problem]}, on the same episodes")
        linear = {"retail": 10.0, "banking": 300.0}[problem]  # in between the axis is linear, beyond logarithmic
        axes.set_yscale("symlog", linthresh=linear)
        ticks = {"retail": (-10, 0, 10, 30, 100, 300), "banking": (-300, 0, 300, 1000, 3000, 10000)}[problem]
        axes.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-1.2 * linear, 3 * ticks[-1])  # room for the legend
        axes.grid(axis="y", color="#DDDDDD", lw=0.8)
        axes.set(xlabel="training episodes", ylabel=f"{unit}, above the rule", xlim=(0, EPISODES[problem]))
        axes.set_title(f"{problem}, medium", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    what = "In training, with exploration: distance to the rule to beat on the same training episodes"
    figure.suptitle(f"{what}; mean of the seeds, band = 95 % t interval", fontsize=11)
    figure.savefig(ROOT / "docs" / "images" / "curves.png", dpi=110)
    plt.close(figure)


def digits(name: str) -> int:
    return {"cost_per_transaction": 3, "team_return": 0, "risk_violation_percent": 2}.get(name, 1)


def closed(gap, value: float, to_beat: float | None) -> list[str]:
    """Of the gap above the plain rule, and of the one that the rule to beat leaves."""
    return ["", ""] if gap is None or to_beat is None else [gap.closed(value), gap.closed(value, to_beat)]


def gap_of(problem: str, difficulty: str, cell):
    """From the plain rule to the bound, for the policies of this table; None where bounds.py has not been run."""
    from core.experiment.reporting.tables import stored_gap

    rules = cell[cell["policy"].str.startswith("rule: ")].set_index("policy")[SORTED_BY[problem]]
    means = {name.removeprefix("rule: "): value for name, value in rules.items()}
    return stored_gap(ROOT / problem / "bounds.csv", difficulty, BASELINE[problem], means), means


if __name__ == "__main__":
    main()
