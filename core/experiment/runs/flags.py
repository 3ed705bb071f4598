"""The flags of `train.py` and `demo.py`, and what they say as `Options`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.experiment.reporting.tables import OWN
from core.experiment.runs.command import EXIT_CODES, UsageError
from core.experiment.runs.settings import Setting
from core.team.files import read_json

DIFFICULTIES = ("easy", "medium", "hard")
MAX_EPISODES = 1_000_000  # the seeds of two trainings would overlap beyond
MAX_EVAL_EPISODES = 900_000
MAX_SEED = 10**9
MEANINGLESS = {"curriculum": "your data are as hard as they are", "validation": "your newest data are the test"}
ONLY_TRAIN = (
    "--seeds",
    "--num-envs",
    "--curriculum",
    "--credit",
    "--start-from",
    "--eval-every",
    "--validation",
    "--data",
)


@dataclass
class Options:
    """The flags, with the defaults filled in. `given` names those that the user wrote."""

    algo: str
    episodes: int
    setting: Setting  # of the algorithm; num_envs, env and config are those of this run
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    num_envs: int | None = None
    difficulty: str = "medium"
    curriculum: bool = False
    credit: str = "critic"
    start_from: str | None = None  # name of a rule
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
    rule: str | None = None  # as it was stated
    fast: bool = False
    demo: bool = False  # of a demo, which tells the story of one training on drawn episodes
    given: frozenset[str] = frozenset()


def parse(
    script: str,
    settings: Mapping[str, Setting],
    algorithm: str,
    argv: Sequence[str] | None = None,
    *,
    episodes: int,
    fast_episodes: int | None = None,
    data_help: str = "",
    beside_data: Mapping[str, str] = MEANINGLESS,
) -> Options:
    """The flags of a script -> Options.

    Args:
        script: such as "retail/train.py"; results go to that folder's `results/`.
        settings: an entry an algorithm, the choices of `--algo`; `algorithm` is the default.
        argv: the words of the command line, sys.argv's by default.
        episodes: default number of training episodes.
        fast_episodes: the same with `--fast`; makes it a demo, which takes fewer flags than a training.
        data_help: what `--data FILE.csv` expects.
        beside_data: flags that `--data` leaves without a meaning, and why.

    Raises:
        UsageError: what was asked for makes no sense. argparse exits by itself, with code 2, on unknown flags.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(script, settings, algorithm, episodes, fast_episodes, data_help)
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        word = unknown[0].split("=")[0]
        close = [flag for flag in flags if flag.startswith(word)] or difflib.get_close_matches(word, flags, n=1)
        parser.error(f"unknown argument {unknown[0]!r}: {f'did you mean {close[0]}?' if close else 'see --help'}")
    values = vars(found)
    values["config"] = {**read_config(values["config"]), **read_settings(values.pop("set"))}
    fast = values.get("fast", False)
    if values["episodes"] is None:
        values["episodes"] = fast_episodes if fast else episodes
    if values["eval_episodes"] is None:
        values["eval_episodes"] = 200 if fast else 1000
    given = {action.dest for action in parser._actions if _was_given(action, argv)}
    demo = fast_episodes is not None
    options = Options(**values, setting=settings[values["algo"]], demo=demo, given=frozenset(given))
    if options.start_from is not None:  # a learnt critic's slope would lead away from the rule
        if "credit" in given and options.credit != "known":
            raise UsageError("--start-from together with --credit critic: it needs --credit known; leave --credit out")
        options.credit = "known"
    if options.credit == "known":
        flag = "--credit known" if options.start_from is None else "--start-from"
        if options.setting.known is None:
            having = ", ".join(name for name, setting in settings.items() if setting.known) or "none"
            raise UsageError(
                f"{flag}: {options.algo} has no form with known consequences here; those that have: {having}"
            )
        options.setting = options.setting.known
    if options.start_from is not None:
        setting = options.setting
        options.setting = dataclasses.replace(setting, config={**setting.config, **setting.start})
    if {"seed", "seeds"} <= given:
        found = "--seed and --seeds were both given"
        raise UsageError(f"{found}: --seeds 0 1 2 trains three, --seed 0 one; keep one of them")
    for name, reason in beside_data.items() if options.data is not None else ():
        if name in given and getattr(options, name):
            raise UsageError(f"--{name} together with --data: {reason}; leave it out")
    if len(set(options.seeds)) != len(options.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, options.seeds))}: a seed is there twice; name each once")
    if "seed" in options.config:
        raise UsageError(f"config['seed'] {options.config['seed']!r} was found: give --seed or --seeds instead")
    return options


def _parser(
    script: str,
    settings: Mapping[str, Setting],
    algorithm: str,
    episodes: int,
    fast_episodes: int | None,
    data_help: str,
) -> argparse.ArgumentParser:
    demo = fast_episodes is not None
    what = "Train, and show costs before and after against classical rules." if demo else "Train and evaluate."
    parser = argparse.ArgumentParser(
        prog=script, description=f"{what} Every flag has a default.", epilog=EXIT_CODES, allow_abbrev=False
    )
    folder = script.split("/")[0]
    sizes = ", ".join(f"{name} {setting.num_envs}" for name, setting in settings.items())
    fast = f"; --fast: {fast_episodes}" if demo else ""

    def add(flag: str, help: str, **options: Any) -> None:
        if not (demo and flag in ONLY_TRAIN):
            parser.add_argument(flag, help=help, **options)

    def switch(flag: str, help: str, default: bool = False) -> None:
        shown = flag if default else f"--no-{flag[2:]}"
        add(flag, f"{help} (default: {shown})", action=argparse.BooleanOptionalAction, default=default)

    def count(flag: str, low: int, high: int, help: str, metavar: str = "N", **options: Any) -> None:
        add(flag, help, type=whole(low, high), metavar=metavar, **options)

    add("--algo", f"algorithm (default: {algorithm})", choices=list(settings), default=algorithm)
    count("--episodes", 1, MAX_EPISODES, f"training episodes (default: {episodes}{fast})")
    seed = "of weights, exploration and training episodes (default: 0)"
    count("--seed", 0, MAX_SEED, seed, "S", default=0)
    several = "train each of these in turn and summarize over them (default: only --seed)"
    count("--seeds", 0, MAX_SEED, several, "S", nargs="+", default=[])
    if demo:
        switch("--fast", "a short budget, to see that everything works")
    count("--num-envs", 1, 100_000, f"training episodes that run side by side (default: {sizes})", "E")
    add("--difficulty", "of the environment (default: medium)", choices=DIFFICULTIES, default="medium")
    switch("--curriculum", "train on easy, medium and hard in turn; --difficulty is then that of the evaluation")
    credit = "critic: a learnt critic says what an action was worth; known: the simulator does (default: critic)"
    add("--credit", credit, choices=("critic", "known"), default="critic")
    start = f"begin with a copy of this rule of the tables, or of your own ({OWN!r}), and learn from --credit known"
    add("--start-from", f"{start} (default: with nothing)", metavar="RULE")
    device = "auto, cpu, cuda or cuda:N (default: auto: cuda if there is one)"
    add("--device", device, default="auto", metavar="D")
    threads = "threads of PyTorch; more seldom help networks of this size (default: 1)"
    count("--threads", 1, 1024, threads, default=1)
    config = "a JSON object of hyper-parameters that override the built-in ones (default: none)"
    add("--config", config, metavar="FILE.json")
    change = "change single hyper-parameters, after --config (default: none)"
    add("--set", change, action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    resume = "continue a run exactly: its folder or folder name, or the newest (default: a new run)"
    add("--resume", resume, nargs="?", const="latest", metavar="RUN")
    results = Path(__file__).resolve().parents[3] / folder / "results"
    add("--out", f"where run folders go (default: {folder}/results)", type=Path, default=results, metavar="DIR")
    every = "evaluate during the training every N episodes; 0: never (default: a tenth of the training)"
    count("--eval-every", 0, MAX_EPISODES, every)
    unseen = f"unseen episodes for each evaluated policy (default: 1000{'; --fast: 200' if demo else ''})"
    count("--eval-episodes", 1, MAX_EVAL_EPISODES, unseen)
    switch("--validation", "judge on validation episodes, to choose settings by; test episodes are kept for the end")
    save = "save every N episodes, and every five minutes; 0: at the end only (default: a tenth of the training)"
    count("--save-every", 0, MAX_EPISODES, save)
    switch("--quiet", "print nothing but errors and the results folder")
    switch("--plots", "draw the pictures", default=True)
    add("--data", f"{data_help} (default: none)", metavar="FILE.csv")
    rule = "your rule beside the classical ones: FILE.json with its numbers, or FILE.py:function, which is run"
    add("--rule", f"{rule} (default: none)", metavar="FILE")
    return parser


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


def read_config(path: str | None) -> dict[str, Any]:
    """The hyper-parameters of a JSON file: one flat object. Raises UsageError when it is not that."""
    if path is None:
        return {}
    try:
        content = read_json(path)
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror}); name an existing JSON file") from None
    except ValueError as error:
        raise UsageError(f'--config {error}; write one object, {{"learning_rate": 0.001}}') from None
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
        except (ValueError, RecursionError):  # also a number of more digits than Python reads
            config[key] = text
    return config
