"""A trained team at work, as a GIF: `python main.py --play RUN`. Beside it the rule to beat, on the same episode."""

from __future__ import annotations

from pathlib import Path

from core.experiment.deployment.saved_teams import ROOT, load_team, problem_module, trained
from core.experiment.evaluation import record_episode
from core.experiment.reporting.tables import AFTER, KNOWN
from core.experiment.runs.command import UsageError
from core.experiment.runs.folders import require_writable
from core.experiment.tuning import EVALUATION_SEED


def play(run: Path | None = None, seed: int | None = None, out: Path | None = None) -> Path:
    """Draw one unseen episode of a run's team into `play.gif` -> its path.

    Args:
        run: the run folder, its name, or `results/latest`; by default the newest of both problems, or a shipped team.
        seed: of the episode; the first unseen one by default.
        out: the folder of the GIF; the run's folder by default, the current one for a shipped team.

    Raises:
        UsageError: there is no such run.
        ValueError: its team cannot be loaded.
        OSError: the GIF cannot be written.
    """
    run = _newest() if run is None else run
    found = trained(run)
    checkpoint, config, settings = next((one for one in found if one[0].parent.name == "known"), found[0])
    report = problem_module(config["problem"], "report")
    name = KNOWN if checkpoint.parent.name == "known" else AFTER
    folder = next(path for path in checkpoint.parents if (path / "config.json").exists())
    place = out or (Path.cwd() if folder.parent.name == "teams" else folder)  # what is shipped stays as it is
    require_writable(place)
    seed = EVALUATION_SEED if seed is None else seed
    env = settings.make_env(difficulty=config["difficulty"], data=config["data"], evaluation=True)
    steps = record_episode(env, load_team(checkpoint, config, settings), seed)
    by_rule = record_episode(env, settings.rules(env)[report.BESIDE], seed)
    path = place / "play.gif"
    report.animate(path, f"{config['algo'].upper()} {name}, unseen episode {seed}", steps, by_rule)
    return path


def _newest() -> Path:
    """The newest run of both problems; before the first one, a team that is shipped."""
    runs, shipped = ([p.parent for p in ROOT.glob(f"*/{kind}/*/config.json")] for kind in ("results", "teams"))
    if not runs and not shipped:
        raise UsageError("there is no run to play yet: python main.py --all makes two, --play RUN names another folder")
    return max(runs, key=lambda path: path.name) if runs else max(shipped)
