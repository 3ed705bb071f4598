"""An earlier run goes on exactly as it began."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from core.experiment.reporting.csv_table import files_of
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.command import RunError, UsageError
from core.experiment.runs.flags import DIFFICULTIES, MAX_EPISODES, MAX_EVAL_EPISODES, MAX_SEED, Options
from core.experiment.runs.folders import RunFolder, provenance
from core.experiment.runs.settings import Setting
from core.team.files import refusing_other_shapes

# What config.json holds of the flags. A resumed run takes them from there, unless they are given anew and may be.
STORED = (
    *("algo", "episodes", "seed", "seeds", "num_envs", "difficulty", "curriculum", "credit", "start_from", "data"),
    *("eval_every", "eval_episodes", "save_every", "validation", "threads", "device"),
)
ANEW = ("episodes", "eval_every", "eval_episodes", "save_every", "threads", "device")  # the same training, all the same
FIXED = (*(name for name in STORED if name not in ANEW), "config", "set", "fast")


def reopen(problem: str, settings: Mapping[str, Setting], options: Options, folder: RunFolder) -> Options:
    """The options of an earlier run, with those changes that a resumed run may have.

    Raises:
        UsageError: a flag that would make another run of it, a changed data file, fewer episodes than are done.
        RunError: its config.json is damaged, or of another version.
    """
    try:
        config = folder.read_config()
        stored = {name: config[name] for name in STORED}
        hyperparameters, env_options, name = config["hyperparameters"], config["env_options"], config["problem"]
        for name_of_object in ("data_sha256", "hyperparameters", "env_options"):
            config[name_of_object].keys()
    except KeyError as error:
        raise RunError(f"{folder.path}: config.json has no entry {error}; it is of no run of this version") from None
    except AttributeError:
        raise RunError(f"{folder.path}: {name_of_object} in config.json is no object; start a new run") from None
    except ValueError as error:
        raise RunError(str(error)) from None
    if name != problem:
        raise UsageError(f"{folder.path} is a {name} run: resume it with {name}/train.py")
    for name in FIXED:
        if name in options.given and (name not in stored or getattr(options, name) != stored[name]):
            flag = "--" + name.replace("_", "-")
            began = f"the run began with {stored[name]!r}" if name in stored else "a resumed run keeps its own"
            raise UsageError(f"{flag} together with --resume: {began}; leave {flag} out, or start a new run")
    _refuse_impossible(stored, settings, folder)
    for name, what in {"seeds": "trains several seeds", "data": "learns from your own data"}.items():
        if options.demo and stored[name]:
            raise UsageError(f"{folder.path} {what}: resume it with {problem}/train.py")
    then, now = config["data_sha256"], fingerprints(stored["data"])
    for path in {**then, **now}:
        if then.get(path) != now.get(path):
            raise UsageError(f"{path} has changed since the run began: put the old file back, or start a new run")
    _warn_of_other_code(config)
    if config.get("rule") and options.rule is None:
        left = f"it began beside your rule {config['rule']!r}, which is left out unless you give --rule again"
        warnings.warn(left, stacklevel=2)
    kept = {name: value for name, value in stored.items() if name not in options.given}
    setting = dataclasses.replace(settings[stored["algo"]], env=env_options, config=hyperparameters)
    options = dataclasses.replace(options, **kept, setting=setting)
    _refuse_fewer_episodes(options, folder)
    return options


def _refuse_impossible(stored: dict[str, Any], settings: Mapping[str, Setting], folder: RunFolder) -> None:
    """A stored option is held to what its flag would be held to: somebody may have edited the file."""

    def whole(value: Any, low: int, high: int = MAX_SEED) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    largest = {"episodes": MAX_EPISODES, "num_envs": 100_000, "eval_episodes": MAX_EVAL_EPISODES, "threads": 1024}
    possible = {name: whole(stored[name], 1, high) for name, high in largest.items()}
    possible |= {name: stored[name] is None or whole(stored[name], 0) for name in ("eval_every", "save_every")}
    possible |= {name: isinstance(stored[name], bool) for name in ("curriculum", "validation")}
    seeds = stored["seeds"]
    possible |= {"seed": whole(stored["seed"], 0), "seeds": isinstance(seeds, list) and all(whole(s, 0) for s in seeds)}
    possible |= {"algo": stored["algo"] in list(settings), "difficulty": stored["difficulty"] in DIFFICULTIES}
    possible |= {"credit": stored["credit"] in ("critic", "known")}
    possible |= {"start_from": stored["start_from"] is None or isinstance(stored["start_from"], str)}
    possible |= {"data": stored["data"] is None or isinstance(stored["data"], str)}
    possible |= {"device": isinstance(stored["device"], str)}
    for name, holds in possible.items():
        if not holds:
            raise RunError(f"{folder.path}: config.json has {name} {stored[name]!r}, which no run has; start a new run")


def fingerprints(data: str | None) -> dict[str, str]:
    """The user's files that shape the world of a run -> what tells one content from another."""
    if data is None:
        return {}
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(data)}


def stored_world(folder: RunFolder, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `env.world()` was when the run began: names, scales, limits, costs. It needs no file of the user's.

    Raises:
        RunError: it is not there, or has been edited.
    """
    world = config.get("world")
    if not isinstance(world, dict) or config.get("world_sha256") != world_sha256(world):
        raise RunError(f"{folder.path}: world in config.json is missing or edited; put it back, or start a new run")
    return world


def world_sha256(world: Mapping[str, Any]) -> str:
    """What tells one world from another."""
    return hashlib.sha256(json.dumps(world, sort_keys=True).encode()).hexdigest()


def require_same_world(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """Refuse an environment whose limits, scales, costs or names are not those that the run began with.

    Raises:
        UsageError: naming what differs.
        RunError: see `stored_world`.
    """
    then = stored_world(folder, folder.read_config())
    if world_sha256(then) == world_sha256(now):
        return
    then, now = (world | world["constants"] for world in (then, json.loads(json.dumps(now))))
    name = next(name for name in {**now, **then} if name != "constants" and then.get(name) != now.get(name))
    found = f"the run began with {name} {then.get(name)!r}, now it is {now.get(name)!r}"
    raise UsageError(f"{folder.path}: {found}: start a new run for another world")


def read_checkpoint(folder: RunFolder, episodes: int, say: Any) -> dict[str, Any] | None:
    """The state to continue from; None when the run was stopped before its first checkpoint.

    Raises:
        RunError: no checkpoint of the run is whole.
        UsageError: more episodes are done than there shall be in the end.
    """
    try:
        saved = load_checkpoint(folder.checkpoint)
    except FileNotFoundError:
        say(f"{folder.path.name}: stopped before its first checkpoint, so it starts from the beginning")
        return None
    except ValueError as error:
        raise RunError(str(error)) from None
    try:
        with refusing_other_shapes(str(folder.checkpoint)):
            done = len(saved["history"]["values"])
    except ValueError as error:
        raise RunError(str(error)) from None
    if done > episodes:
        raise UsageError(f"--episodes {episodes}: {folder.path.name} has {done} already; give no less")
    say(f"{folder.path.name}: {done} of {episodes} episodes were done before")
    return saved


def _refuse_fewer_episodes(options: Options, folder: RunFolder) -> None:
    """Counted from the checkpoints: progress.csv is for people, and a spreadsheet may have changed it."""
    for path in folder.path.glob("**/checkpoint.pt"):
        try:
            done = len(load_checkpoint(path)["history"]["values"])
        except (ValueError, KeyError, TypeError):
            continue  # said when the training is to go on from it
        if done > options.episodes:
            raise UsageError(f"--episodes {options.episodes}: {path.parent} has {done} already; give no less")


def _warn_of_other_code(config: dict[str, Any]) -> None:
    now = provenance()
    for name in ("commit", "versions"):
        if config.get(name) != now[name]:
            change = f"the run began with {name} {config.get(name)}, now {now[name]}"
            warnings.warn(f"{change}: it may go on differently", stacklevel=2)
