"""What the scripts of both problems share: flags, configuration files, signals and exit codes.

A script describes its `Problem` and calls `main`. What happens then is in `runs.py`.

Exit codes: 0 done; 1 it could not be done (an unwritable folder, a damaged checkpoint, ...); 2 what was asked for
makes no sense (an unknown flag, key or value); 130 and 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.experiment.runs.signals import Interrupted, StopSignals

DIFFICULTIES = ("easy", "medium", "hard")
MAX_EPISODES = 1_000_000  # the seeds of two trainings would overlap beyond
MAX_EVAL_EPISODES = 900_000
EXIT_CODES = "exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 stopped by Ctrl-C, 143 stopped by SIGTERM"


@dataclass(frozen=True)
class Report:
    """How a problem's results are worded and drawn. Columns and metrics name entries of info["episode_metrics"]."""

    metric: str  # the one of the learning curve and the progress bar; lower is better
    columns: tuple[tuple[str, str, str], ...]  # (header, metric, number format) of the printed table
    gaps: tuple[tuple[str, str, str], ...]  # (metric, word, opposite): "12 % cheaper", "3 % dearer"
    rivals: tuple[str, ...]  # the classical rules that the trained team is compared with in such words
    steps_name: str  # file name of the evaluated episode, step by step
    steps_table: Callable[[Sequence[Mapping[str, Any]]], Any]  # recorded steps -> pandas table
    draw: Callable[[Path, Any], None]  # (folder, Results) -> pictures
    data_columns: tuple[tuple[str, str, str], ...] = ()  # of the table on the user's own data, where they differ
    labels: Mapping[str, str] = field(default_factory=dict)  # what to call a rule, where not as in baselines.py
    weights: Mapping[str, str] = field(default_factory=dict)  # metric that is a share -> the one that it is a share of
    gap: tuple[str, str] | None = None  # (plain rule, metric) that the closed gap is counted from and in


@dataclass(frozen=True)
class Problem:
    """One problem, as the command line needs it. `configs` and the like have one entry an algorithm."""

    name: str
    folder: Path  # its results go to folder/results
    algorithm: str  # the default
    algorithms: Mapping[str, Callable[..., Any]]  # name -> factory of a team
    configs: Mapping[str, Mapping[str, Any]]  # hyper-parameters
    num_envs: Mapping[str, int]  # environments side by side in training
    env_options: Mapping[str, Mapping[str, Any]]  # of the training environment; evaluation takes the defaults
    make_env: Callable[..., Any]  # (num_envs, difficulty, seed, data, evaluation, **env_options)
    baselines: Callable[[Any], Mapping[str, Callable[..., Any]]]
    report: Report
    episodes: int  # of train.py
    demo_episodes: int
    fast_episodes: int  # of demo.py --fast
    story: str = ""  # what the demo says first
    data_help: str = ""
    data_report: Callable[[str], str] | None = None  # path of the user's data -> what is in it, for a person
    data_warning: Callable[[str], str] | None = None  # -> what must stand beside every result, or ""
    data_difficulty: bool = False  # difficulties also differ in what no data tell


class UsageError(Exception):
    """What was asked for makes no sense: exit code 2."""


class RunError(Exception):
    """It could not be done: exit code 1."""


def main(problem: Problem, argv: Sequence[str] | None = None, *, demo: bool) -> int:
    """Parse the flags, run, and return the exit code. A user's mistake is one line on stderr, never a traceback."""
    parser = build_parser(problem, demo=demo)
    try:
        options = parse(parser, argv)
        with StopSignals() as stop, plain_warnings():
            from core.experiment.runs.run import run  # after the flags: a typo is told at once

            run(problem, options, stop)
    except UsageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except (RunError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(f"{parser.prog}: stopped. {stopped.hint}".rstrip(), file=sys.stderr)
        return 128 + stopped.number
    return 0


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Inside, a warning is one line on stderr, without the place in the code that gave it."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        yield


# --- flags ------------------------------------------------------------------------------------------------------------


@dataclass
class Options:
    """The flags, with the defaults filled in. `given` names those that the user wrote."""

    algo: str
    episodes: int
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    num_envs: int | None = None
    difficulty: str = "medium"
    curriculum: bool = False
    device: str = "auto"
    threads: int = 1
    config: dict[str, Any] = field(default_factory=dict)  # from --config and --set
    resume: str | None = None
    out: Path = Path()
    eval_every: int | None = None
    eval_episodes: int = 1000
    validation: bool = False
    save_every: int | None = None
    quiet: bool = False
    plots: bool = True
    data: str | None = None
    fast: bool = False
    demo: bool = False
    given: frozenset[str] = frozenset()


def build_parser(problem: Problem, *, demo: bool) -> argparse.ArgumentParser:
    """The flags of train.py, or the subset of them that demo.py takes."""
    what = "Train, and show costs before and after against classical rules." if demo else "Train and evaluate."
    parser = argparse.ArgumentParser(
        prog=f"{problem.name}/{'demo' if demo else 'train'}.py",
        description=f"{what} Every flag has a default.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    episodes = problem.demo_episodes if demo else problem.episodes
    add = parser.add_argument
    parser.set_defaults(demo=demo, default_episodes=episodes, fast_episodes=problem.fast_episodes)
    add(
        "--algo",
        choices=list(problem.algorithms),
        default=problem.algorithm,
        help=f"algorithm (default: {problem.algorithm})",
    )
    fast = f"; --fast: {problem.fast_episodes}" if demo else ""
    add("--episodes", type=whole(1, MAX_EPISODES), metavar="N", help=f"training episodes (default: {episodes}{fast})")
    add(
        "--seed",
        type=whole(0, 10**9),
        default=0,
        metavar="S",
        help="of weights, exploration and training episodes (default: 0)",
    )
    if demo:
        add(
            "--fast",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="a short budget, to see that everything works (default: --no-fast)",
        )
    else:
        add(
            "--seeds",
            type=whole(0, 10**9),
            nargs="+",
            default=[],
            metavar="S",
            help="train each of these in turn and summarize over them (default: only --seed)",
        )
        sizes = ", ".join(f"{name} {size}" for name, size in problem.num_envs.items())
        add(
            "--num-envs",
            type=whole(1, 100_000),
            metavar="E",
            help=f"training episodes that run side by side (default: {sizes})",
        )
    add("--difficulty", choices=DIFFICULTIES, default="medium", help="of the environment (default: medium)")
    if not demo:
        add(
            "--curriculum",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="train on easy, medium and hard in turn; --difficulty is then that of the evaluation"
            " (default: --no-curriculum)",
        )
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: auto: cuda if there is one)")
    add(
        "--threads",
        type=whole(1, 1024),
        default=1,
        metavar="N",
        help="threads of PyTorch; more seldom help networks of this size (default: 1)",
    )
    add(
        "--config",
        metavar="FILE.json",
        help="a JSON object of hyper-parameters that override the built-in ones (default: none)",
    )
    add(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change single hyper-parameters, after --config (default: none)",
    )
    add(
        "--resume",
        nargs="?",
        const="latest",
        metavar="RUN",
        help="continue a run exactly: its folder or folder name, or the newest (default: a new run)",
    )
    add(
        "--out",
        type=Path,
        default=problem.folder / "results",
        metavar="DIR",
        help=f"where run folders go (default: {problem.name}/results)",
    )
    if not demo:
        add(
            "--eval-every",
            type=whole(0, MAX_EPISODES),
            metavar="N",
            help="evaluate during the training every N episodes; 0: never (default: a tenth of the training)",
        )
    add(
        "--eval-episodes",
        type=whole(1, MAX_EVAL_EPISODES),
        metavar="N",
        help=f"unseen episodes for each evaluated policy (default: 1000{'; --fast: 200' if demo else ''})",
    )
    if not demo:
        add(
            "--validation",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="judge on validation episodes, to choose settings by, and keep the test episodes for the end"
            " (default: --no-validation)",
        )
    add(
        "--save-every",
        type=whole(0, MAX_EPISODES),
        metavar="N",
        help="save a checkpoint every N episodes; 0: at the end only (default: a tenth of the training)",
    )
    add(
        "--quiet",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="print nothing but errors and the results folder (default: --no-quiet)",
    )
    add("--plots", action=argparse.BooleanOptionalAction, default=True, help="draw the pictures (default: --plots)")
    if not demo:
        add("--data", metavar="FILE.csv", help=f"{problem.data_help} (default: none)")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> Options:
    """Flags -> Options. Exits with code 2 (argparse) or raises UsageError for what makes no sense."""
    argv = list(sys.argv[1:] if argv is None else argv)
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        word = unknown[0].split("=")[0]
        close = [flag for flag in flags if flag.startswith(word)] or difflib.get_close_matches(word, flags, n=1)
        parser.error(f"unknown argument {unknown[0]!r}: {f'did you mean {close[0]}?' if close else 'see --help'}")
    values = vars(found)
    default_episodes, fast_episodes = values.pop("default_episodes"), values.pop("fast_episodes")
    config = {**read_config(values["config"]), **read_settings(values.pop("set"))}
    fast = values.get("fast", False)
    if values["episodes"] is None:
        values["episodes"] = fast_episodes if fast else default_episodes
    if values["eval_episodes"] is None:
        values["eval_episodes"] = 200 if fast else 1000
    given = {action.dest for action in parser._actions if _was_given(action, argv)}
    options = Options(**{**values, "config": config, "given": frozenset(given)})
    if {"seed", "seeds"} <= given:
        raise UsageError(
            "--seed and --seeds were both given: --seeds 0 1 2 trains three, --seed 0 one; keep one of them"
        )
    if len(set(options.seeds)) != len(options.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, options.seeds))}: a seed is there twice; name each once")
    return options


def _was_given(action: argparse.Action, argv: Sequence[str]) -> bool:
    return any(word.split("=")[0] in action.option_strings for word in argv if word.startswith("--"))


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `low` to `high`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} was found; give a whole number from {low} to {high}")
        return value

    return number


# --- configuration ----------------------------------------------------------------------------------------------------


def read_config(path: str | None) -> dict[str, Any]:
    """The hyper-parameters of a JSON file: one flat object. Raises UsageError when it is not that."""
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror}); name an existing JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not valid JSON ({error}); correct the file") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UsageError(f'--config {path}: a {found} was found; write one object, {{"learning_rate": 0.001}}')
    # A run's config.json is accepted too: its hyper-parameters are one entry of it.
    return content["hyperparameters"] if isinstance(content.get("hyperparameters"), dict) else content


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` words -> dictionary. Values are JSON where they can be (0.1, true, [64, 64]), text otherwise."""
    config = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {setting!r}: no key=value was found; write for instance --set learning_rate=0.001")
        if key in config:
            raise UsageError(f"--set {setting}: {key} is there twice; give it once")
        try:
            config[key] = json.loads(text)
        except json.JSONDecodeError:
            config[key] = text
    return config
