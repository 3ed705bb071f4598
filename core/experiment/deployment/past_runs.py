"""What was run, and how two runs differ: `python main.py --runs`, `python main.py --compare A B`.

Two runs are compared on the unseen episodes that both were judged on, pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from core.experiment.deployment.saved_teams import ROOT, problem_module, trained
from core.experiment.reporting.tables import BEFORE, KEYS, KNOWN, TRAINED, Results, aligned
from core.experiment.runs.command import UsageError
from core.experiment.runs.folders import RunFolder, require_writable
from core.experiment.tuning import plus_minus, student_t_quantile

NO_SETTING = ("command", "started", "platform", "device", "threads", "save_every", "eval_every")  # change no result
WORLD = ("difficulty", "validation", "world_sha256")  # what the unseen episodes hang on


def list_runs(folder: Path | None = None) -> str:
    """A table a problem: every run with what it trained and what came out, the oldest first.

    Args:
        folder: where run folders are looked for, or folders of them; `retail/results` and `banking/results` by default.
    """
    places = sorted(ROOT.glob("*/results")) if folder is None else [folder]
    paths = sorted(
        {path.parent for place in places for level in ("*", "*/*") for path in place.glob(f"{level}/config.json")}
    )
    lines: dict[str, list[list[str]]] = {}
    for path in paths:
        try:
            config = RunFolder(path).read_config()
            report = problem_module(str(config.get("problem")), "report")
        except ValueError:
            continue  # no run of this version
        header, metric, number = report.COLUMNS[0]
        title = ["run", "trained", "judged on", f"{header}: before", "after", "best rule"]
        rows = lines.setdefault(str(config["problem"]), [title])
        rows.append([path.name, _training(config), _world(config), *_outcome(path, metric, number)])
    if not lines:
        return f"no run in {' or '.join(map(str, places))}; start one: python main.py --all"
    return "\n\n".join(f"{problem}\n{aligned(rows)}" for problem, rows in lines.items())


def _training(config: Mapping[str, Any]) -> str:
    seeds = len(config.get("seeds") or [0])
    return f"{seeds} x {config.get('episodes')}" if seeds > 1 else f"{config.get('episodes')}"


def _world(config: Mapping[str, Any]) -> str:
    name = Path(str(config["data"])).name if config.get("data") else str(config.get("difficulty"))
    return name + (", validation" if config.get("validation") else "")


def _outcome(path: Path, metric: str, number: str) -> list[str]:
    """Before, after and the best rule, in the metric that the problem is about."""
    import pandas as pd

    try:
        table = pd.read_csv(path / "summary.csv").set_index("policy")
        before = number.format(table.loc[BEFORE, metric])
        team = table.loc[[policy for policy in TRAINED if policy in table.index], "team_return"].idxmax()
        after = plus_minus(number, table.loc[team, metric], table.loc[team, f"{metric}_ci95"])
        rule = table.drop(index=[BEFORE, *TRAINED], errors="ignore")["team_return"].idxmax()
        return [before, after, number.format(table.loc[rule, metric])]
    except OSError:
        return ["", "not finished", ""]
    except (KeyError, ValueError, TypeError):  # somebody edited it
        return ["", "summary.csv is damaged", ""]


# --- two of them ------------------------------------------------------------------------------------------------------


def compare(runs: tuple[Path, Path], out: Path | None = None) -> str:
    """What differs in settings, and by how much the trained teams differ on the episodes that both were judged on.

    Draws both learning curves into `compare.png`, in `out` or the second run's folder.

    Raises:
        UsageError: runs that are none, are not finished, or have no unseen episode in common.
        OSError: the picture cannot be written.
    """
    folders, configs, found = zip(*map(_open, runs), strict=True)
    if len({config["problem"] for config in configs}) > 1:
        raise UsageError(
            f"{folders[0].name} is a {configs[0]['problem']} run, {folders[1].name} is not: nothing is equal"
        )
    worlds = [[config.get(name) for name in WORLD] + sorted(config["data_sha256"].values()) for config in configs]
    if worlds[0] != worlds[1]:
        names = " and ".join(map(_world, configs))
        raise UsageError(f"the runs were judged on {names}: no unseen episode is the same, so nothing can be paired")
    report: ModuleType = problem_module(configs[0]["problem"], "report")
    names = [f"{letter}: {folder.name}" for letter, folder in zip("AB", folders, strict=True)]
    lines = [*names, "", "What differs in settings:", *_differences(*configs), ""]
    table, change = _paired(report, found)
    lines += table
    place = (out or folders[1]) / "compare.png"
    require_writable(place.parent)
    forms = {
        letter + _form(one): one.curves(*report.CURVE[:2])[one.trained[0]]
        for letter, one in zip("AB", found, strict=True)
    }
    options = SimpleNamespace(**{name: configs[1].get(name) for name in ("difficulty", "validation", "data")})
    report.draw_curve(place, forms, found[1], options, title=f"{change}\n{'; '.join(names)}")
    return "\n".join([*lines, "", f"Learning curves of both: {place}"])


def _form(one: Results) -> str:
    return ", known consequences" if one.trained[0] == KNOWN else ""


def _open(run: Path) -> tuple[Path, dict[str, Any], Results]:
    """Folder, config and results of a finished run."""
    import pandas as pd

    checkpoint, config, _ = trained(run)[0]
    folder = next(path for path in checkpoint.parents if (path / "config.json").exists())
    report = problem_module(config["problem"], "report")
    try:
        evaluation = pd.read_csv(folder / "evaluation.csv")
        evaluation[[*KEYS, "team_return"]]
        histories = {
            path.parent: pd.read_csv(path)
            for path in (folder / "progress.csv", *folder.glob("*/progress.csv"))
            if path.exists()
        }
    except OSError:
        raise UsageError(f"{folder} has no evaluation.csv yet: let it finish, with --resume {folder.name}") from None
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: evaluation.csv or progress.csv is damaged ({error}); compare another run"
        ) from None
    known = {0: histories.pop(folder / "known")} if folder / "known" in histories else {}
    plain = dict(enumerate(histories.values()))
    return folder, config, Results(config["algo"], config["episodes"], plain, evaluation, (), report.SHARES, known)


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line a setting that differs."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{name}." if name != "hyperparameters" else "")
            elif name not in NO_SETTING:
                yield prefix + name, value

    settings = [dict(flat(config)) for config in (one, other)]
    names = dict.fromkeys([*settings[0], *settings[1]])
    pairs = {name: [values.get(name, "none") for values in settings] for name in names}
    return [f"  {name}: {a} -> {b}" for name, (a, b) in pairs.items() if a != b] or ["  nothing"]


def _paired(report: ModuleType, found: tuple[Results, Results]) -> tuple[list[str], str]:
    """The table: metrics of A and B, and B - A with its interval; what the interval is over; and its first row."""
    import pandas as pd

    teams = [one.evaluation[one.evaluation["policy"] == one.trained[0]] for one in found]
    seeds = np.intersect1d(teams[0]["seed"], teams[1]["seed"])
    if not len(seeds):
        raise UsageError("the runs have no unseen episode in common: nothing can be paired")
    teams = [team[team["seed"].isin(seeds)].assign(policy=name) for name, team in zip("AB", teams, strict=True)]
    both = Results("", 0, {}, pd.concat(teams, ignore_index=True), (), report.SHARES)
    rows = [["", *(name + _form(one) for name, one in zip("AB", found, strict=True)), "B - A"]]
    for header, metric, number in report.COLUMNS:
        (mean, half), signed = _change(both, metric), number.replace("{:", "{:+")
        change = plus_minus(signed, mean, half) + (" *" if abs(mean) > half else "  ")
        rows.append([header, *(number.format(both.mean(name, metric)) for name in "AB"), change])
    headline = f"{rows[1][0]}: {rows[1][1]} in A, {rows[1][2]} in B; B - A {rows[1][3].rstrip(' *')}, paired"
    counts = [len(both.by_seed(name, "team_return")) for name in "AB"]
    title = f"On the {len(seeds)} unseen episodes that both met (* more than half the 95 % interval):"
    return [title, "", aligned(rows), "", _meaning(*counts)], headline


def _change(both: Results, metric: str) -> tuple[float, float]:
    """B - A and half its 95 % interval: over the episodes of one training each, else over the trainings (Welch)."""
    one, other = (list(both.by_seed(name, metric).values()) for name in "AB")
    if len(one) == len(other) == 1:
        return both.difference("A", "B", metric)
    means = [np.array([values.mean() for values in team]) for team in (one, other)]
    errors = [(m.var(ddof=1) / len(m), len(m) - 1) for m in means if len(m) > 1]
    error = sum(e for e, _ in errors)
    freedom = error**2 / max(sum(e**2 / n for e, n in errors), 1e-300)
    return float(means[1].mean() - means[0].mean()), student_t_quantile(max(freedom, 1.0)) * math.sqrt(error)


def _meaning(one: int, other: int) -> str:
    if one == other == 1:
        return (
            "The interval is over the episodes, of one training each. Another seed would move a training too, and by\n"
            "how much this does not say: train several of both (--seeds 0 1 2 3 4)."
        )
    lone = " The lone training's own luck is not in it: train several of both." if 1 in (one, other) else ""
    return f"The interval is over the trainings, {one} and {other}.{lone}"
