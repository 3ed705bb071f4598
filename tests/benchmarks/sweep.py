"""What a hyper-parameter, the training budget and a curriculum do: one change at a time, all else as in train.py.

    python tests/benchmarks/sweep.py keys        # 3 values of 18 keys -> docs/results/keys.csv, docs/images/keys.png
    python tests/benchmarks/sweep.py budget      # quality against episodes -> budget.csv and budget.png
    python tests/benchmarks/sweep.py curriculum  # easy, medium, hard in turn against direct training -> curriculum.csv

Finished trainings are kept; `--redraw` only draws and prints. Policies are judged greedily on unseen episodes: `keys`
on validation seeds (from 800,000,000), the others on the evaluation seeds of the comparison (from 10,000).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from core.experiment.tuning import VALIDATION_SEED  # noqa: E402

RESULTS, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images"
METRIC = {"retail": ("total_cost", "cost, $"), "banking": ("team_return", "team reward")}
# Key: too small, as in train.py, too large. Short trainings, so that all 39 take minutes.
KEYS = {
    ("maddpg", "retail", 200): {
        "learning_rate": (1e-5, 1e-3, 3e-2),
        "gamma": (0.3, 0.96, 0.995),
        "tau": (0.0003, 0.01, 0.5),
        "batch_size": (16, 256, 1024),
        "updates_per_step": (1, 9, 18),
        "noise_std": (0.05, 1.0, 4.0),
    },
    ("mappo", "banking", 100): {
        "learning_rate": (1e-4, 2.5e-3, 3e-2),
        "gamma": (0.7, 0.99, 0.9995),
        "gae_lambda": (0.0, 0.9, 1.0),
        "clip_range": (0.01, 0.2, 2.0),
        "epochs": (1, 10, 40),
        "entropy_coefficient": (0.0, 0.02, 0.5),
    },
    ("qmix", "retail", 200): {
        "learning_rate": (1e-5, 1e-3, 3e-2),
        "gamma": (0.3, 0.9, 0.995),
        "tau": (0.0003, 0.01, 0.5),
        "batch_size": (16, 256, 1024),
        "mixing_width": (2, 32, 128),
        "epsilon_decay": (0.7, 0.98, 0.9999),
    },
}
BUDGETS = {("maddpg", "retail"): (125, 250, 500, 1000, 2000), ("mappo", "banking"): (25, 50, 100, 200, 400, 800, 3200)}
RULES = {
    "retail": ("base-stock, tuned jointly", "adaptive base-stock, tuned jointly"),
    "banking": ("size threshold", "local index", "global index"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["keys", "budget", "curriculum"])
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds (default: keys 0; the others 0 1)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--eval-episodes", type=int, default=1000, help="unseen episodes (default: 1000)")
    parser.add_argument("--redraw", action="store_true", help="train nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a training as JSON
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(train_one(**json.loads(options.one))))
        return 0
    seeds = options.seeds or ([0] if options.study == "keys" else [0, 1])
    path = RESULTS / f"{options.study}.csv"
    if not options.redraw:
        run_all(
            [entry | {"evaluated": options.eval_episodes} for entry in wanted(options.study, seeds)], path, options.jobs
        )
    report = {"keys": draw_keys, "budget": draw_budget, "curriculum": print_curriculum}[options.study]
    report(read(path))
    return 0


def wanted(study: str, seeds: list[int]) -> list[dict]:
    """The trainings of a study, as arguments of `train_one`."""
    entries = []
    for seed in seeds:
        if study == "keys":
            for (algorithm, problem, episodes), keys in KEYS.items():
                base = {"algorithm": algorithm, "problem": problem, "episodes": episodes, "seed": seed}
                entries.append(base | {"key": "", "value": None})
                for key, (small, _, large) in keys.items():
                    entries += [base | {"key": key, "value": value} for value in (small, large)]
        elif study == "budget":
            for (algorithm, problem), budgets in BUDGETS.items():
                base = {"algorithm": algorithm, "problem": problem, "seed": seed, "first": 10_000}
                entries += [base | {"episodes": episodes} for episodes in budgets]
        else:
            for algorithm, problem in BUDGETS:
                base = {
                    "algorithm": algorithm,
                    "problem": problem,
                    "seed": seed,
                    "first": 10_000,
                    "episodes": 1000 if problem == "retail" else 200,
                }
                entries += [base | {"curriculum": True}]
                entries += [base | {"difficulty": difficulty} for difficulty in ("medium", "hard")]
    return sorted(entries, key=lambda entry: entry["episodes"], reverse=study == "budget")


def train_one(
    algorithm: str,
    problem: str,
    episodes: int,
    seed: int,
    evaluated: int,
    key: str = "",
    value=None,
    difficulty: str = "medium",
    curriculum: bool = False,
    first: int = VALIDATION_SEED,
) -> list[dict]:
    """Train with train.py's settings and one change; a row for each difficulty it is judged on."""
    import torch

    from core.experiment.evaluation import evaluate
    from core.experiment.runs.settings import curriculum_level
    from core.experiment.training import train

    torch.set_num_threads(1)
    if problem == "retail":
        from retail.settings import SETTINGS, make_env
    else:
        from banking.settings import SETTINGS, make_env
    setting = SETTINGS[algorithm]
    env = make_env(min(setting.num_envs, episodes), curriculum_level(0.0) if curriculum else difficulty, **setting.env)
    team = setting.team(env, {"seed": seed} | ({key: value} if key else {}))

    def harder(progress) -> None:
        env.set_difficulty(curriculum_level(progress.fraction))

    started, diverged = time.perf_counter(), False
    try:
        train(env, team, episodes, seed, progress=False, on_round=harder if curriculum else None)
    except FloatingPointError:
        diverged = True
    seconds = time.perf_counter() - started
    rows = []
    for judged in ("medium", "hard") if curriculum else (difficulty,):
        metric = METRIC[problem][0]
        quality = evaluate(make_env(250, judged), team, evaluated, seed=first)[metric].mean()
        rows.append(
            {
                "algorithm": algorithm,
                "problem": problem,
                "episodes": episodes,
                "seed": seed,
                "key": key,
                "value": value,
                "trained_on": "curriculum" if curriculum else difficulty,
                "difficulty": judged,
                "metric": metric,
                "quality": round(float(quality), 3),
                "diverged": diverged,
                "evaluated": evaluated,
                "seconds": round(seconds),
            }
        )
    return rows


IDENTITY = ["algorithm", "problem", "episodes", "seed", "key", "value", "trained_on"]


def run_all(entries: list[dict], path: Path, jobs: int) -> None:
    """Every missing training in a process of its own; a finished one is kept at once."""
    import pandas as pd

    def identity(row) -> tuple:
        value = row.get("value")
        number = None if value is None or value != value else float(value)
        trained_on = row.get("trained_on") or ("curriculum" if row.get("curriculum") else row.get("difficulty"))
        own = [row["algorithm"], row["problem"], int(row["episodes"]), int(row["seed"]), row.get("key") or "", number]
        return (*own, trained_on or "medium")

    done = {identity(row) for row in read(path).to_dict("records")} if path.exists() else set()
    waiting, running = [entry for entry in entries if identity(entry) not in done], []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < jobs:
            command = [sys.executable, __file__, "keys", "--one", json.dumps(waiting.pop(0))]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            if process.returncode:
                raise SystemExit(f"a training failed: {' '.join(process.args)}")
            rows = pd.DataFrame(json.loads(process.stdout.read().splitlines()[-1]))
            print(rows.to_string(header=False, index=False), flush=True)
            whole = pd.concat([read(path), rows]) if path.exists() else rows
            whole.sort_values([*IDENTITY, "difficulty"]).to_csv(path, index=False, lineterminator="\n")
        time.sleep(0.2)


def read(path: Path):
    import pandas as pd

    return pd.read_csv(path, dtype={"key": str}).fillna({"key": ""})


def draw_keys(table) -> None:
    """A panel an algorithm, a row a key, a dot a value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, len(KEYS), figsize=(14, 4.4), layout="constrained")
    colours = ("#0072B2", "#000000", "#D55E00")
    for axes, ((algorithm, problem, episodes), keys) in zip(grid, KEYS.items(), strict=True):
        mine = table[(table["algorithm"] == algorithm) & (table["problem"] == problem)]
        sign = 1.0 if problem == "retail" else -1.0  # less is better in all panels
        used = sign * mine[mine["key"] == ""]["quality"].mean()
        names = []
        for row, (key, (small, as_is, large)) in enumerate(keys.items()):
            tried = mine[mine["key"] == key].groupby("value")["quality"].mean()
            points = [sign * tried[small], used, sign * tried[large]]
            axes.plot(points, [-row] * 3, color="#BBBBBB", lw=1.5, zorder=1)
            for point, colour, order in zip(points, colours, (2, 3, 2), strict=True):
                axes.scatter(point, -row, color=colour, s=36, zorder=order)
            names.append(f"{key}\n{small:g} · {as_is:g} · {large:g}")
        axes.axvline(used, color="#DDDDDD", lw=1, zorder=0)
        axes.set_yticks([-row for row in range(len(keys))], names, fontsize=8.5)
        axes.set_xscale("log")
        ticks = (40, 60, 100, 200, 300) if problem == "retail" else (1500, 2500, 5000, 10000)
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"{'' if sign > 0 else 'minus '}{METRIC[problem][1]}: less is better (log scale)")
        axes.set_title(f"{algorithm.upper()}, {problem}, medium, {episodes} training episodes", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], marker="o", ls="", color=colour) for colour in colours]
    figure.legend(handles, ["smaller", "as in train.py", "larger"], loc="outside lower center", ncols=3, frameon=False)
    what = f"mean of {int(table['evaluated'].max())} validation episodes, one training a dot, so read the cliffs"
    figure.suptitle(f"One hyper-parameter changed at a time; {what}", fontsize=11)
    figure.savefig(IMAGES / "keys.png", dpi=110)
    plt.close(figure)
    print(f"{IMAGES / 'keys.png'}")


def draw_budget(table) -> None:
    """Quality against training episodes, a line a seed and their mean, beside the tuned rules; and the table."""
    import matplotlib
    import pandas as pd

    from core.experiment.evaluation import half_width

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rules = pd.read_csv(RESULTS / "comparison.csv")
    rules = rules[rules["difficulty"] == "medium"].set_index(["problem", "policy"])
    evaluated = f"{int(table['evaluated'].max())} unseen episodes"
    figure, grid = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for axes, (algorithm, problem) in zip(grid, BUDGETS, strict=True):
        metric, label = METRIC[problem]
        wide = table[table["problem"] == problem].pivot_table("quality", "episodes", "seed")
        number = "{:.1f}" if problem == "retail" else "{:.0f}"
        cells = [with_interval(row.dropna(), number) for _, row in wide.iterrows()]
        print(f"\n| {problem}, {algorithm.upper()}: episodes | " + " | ".join(f"{n}" for n in wide.index) + " |")
        print("|---" * (len(wide) + 1) + "|\n| " + f"{label} | " + " | ".join(cells) + " |")
        sign, label = (1.0, label) if problem == "retail" else (-1.0, f"minus {label}")  # less is better, on log axes
        wide, seeds = sign * wide, wide.shape[1]
        axes.plot(wide.index, wide, color="#0072B2", alpha=0.35, lw=1)
        name = f"{algorithm.upper()}, " + (f"mean and each of {seeds} trainings" if seeds > 1 else "one training each")
        axes.plot(wide.index, wide.mean(axis=1), "o-", color="#0072B2", lw=2, label=name)
        if seeds > 1:
            half = wide.apply(lambda row: half_width(row.dropna()), axis=1)
            low, high, band = wide.mean(axis=1) - half, wide.mean(axis=1) + half, "95 % t interval over them"
            low = low.clip(lower=1e-9)  # where the band leaves the picture, it goes on
            axes.fill_between(wide.index, low, high, color="#0072B2", alpha=0.15, lw=0, label=band)
        for rule, colour in zip(RULES[problem], ("#999999", "#D55E00", "#009E73"), strict=False):
            level = sign * rules.loc[(problem, f"rule: {rule}"), metric]
            axes.axhline(level, color=colour, lw=1.3, ls="--", label=f"{rule}: {level:.4g} (2000 episodes)")
        axes.set_xscale("log")
        axes.set_xticks(wide.index, [f"{n}" for n in wide.index])
        axes.set_yscale("log")
        ticks = (35, 40, 45, 50, 60, 70) if problem == "retail" else (1500, 2000, 3000, 5000, 8000)
        axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
        axes.set_ylim(0.95 * ticks[0], 1.1 * ticks[-1])
        axes.minorticks_off()
        axes.set(xlabel="training episodes (log scale)", ylabel=f"{label} (log scale)")
        axes.set_title(f"{problem}, medium: mean of {evaluated}", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(IMAGES / "budget.png", dpi=110)
    plt.close(figure)


def print_curriculum(table) -> None:
    """Judged on medium and on hard: trained on that difficulty from the start, or easy, medium and hard in turn."""
    print("| problem, judged on | trained on it directly | easy, medium, hard in turn | change | seeds |")
    print("|---" * 5 + "|")
    for (problem, difficulty), rows in table.groupby(["problem", "difficulty"], sort=False):
        number = "{:.1f}" if problem == "retail" else "{:.0f}"
        cells = [rows[rows["trained_on"] == how].set_index("seed")["quality"] for how in (difficulty, "curriculum")]
        change = (cells[1] - cells[0]).dropna()  # paired: the same training seeds
        shown = " | ".join(with_interval(values, number) for values in (*cells, change))
        print(f"| {problem}, {difficulty} ({METRIC[problem][1]}) | {shown} | {len(change)} |")


def with_interval(values, number: str) -> str:
    """The mean over training seeds, with half its 95 % t interval if there are several."""
    from core.experiment.evaluation import half_width

    spread = f" ± {number.format(half_width(values))}" if len(values) > 1 else ""
    return number.format(values.mean()) + spread


if __name__ == "__main__":
    sys.exit(main())
