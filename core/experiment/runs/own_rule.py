"""The user's own rule, `--rule FILE`: numbers in a JSON file, or a function in a Python file.

A Python file runs only where the command line names it. A run's config.json says which rule there was, and nothing ever
runs it from there.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.reporting.csv_table import some
from core.experiment.runs.command import UsageError
from core.team.files import read_json


class OwnFunction:
    """A user's function from observations (E, N, O) to actions; what goes wrong in it becomes one line."""

    def __init__(self, stated: str, function: Callable[[np.ndarray], Any]):
        self.stated, self.function = stated, function

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self.function(observations))
        except Exception as error:  # whatever somebody else's code raises
            raise ValueError(f"--rule {self.stated}: {type(error).__name__}: {error}") from error


def load_rule(stated: str, env: Any, from_numbers: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """`FILE.json` -> what `from_numbers(env, object)` makes of it; `FILE.py:function` -> that function.

    It is tried for one step in `env`, which has the axis E.

    Raises:
        UsageError: a file that cannot be read, or a rule that this environment cannot follow.
    """
    path, colon, name = stated.rpartition(":")
    try:
        if colon and path.endswith(".py"):
            rule = OwnFunction(stated, _function(Path(path), name))
        elif stated.endswith(".json"):
            rule = from_numbers(env, read_json(stated))
        else:
            raise ValueError("give a JSON file of numbers, or FILE.py:function")
        env.step(rule(env.reset(0)))
    except OSError as error:
        raise UsageError(f"--rule {stated}: cannot be read ({error.strerror}); name an existing file") from None
    except ValueError as error:
        text = str(error)
        raise UsageError(text if text.startswith("--rule") else f"--rule {stated}: {text}") from None
    return rule


def _function(path: Path, name: str) -> Callable[[np.ndarray], Any]:
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    spec = importlib.util.spec_from_file_location("own_rule_of_the_user", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = some(sorted(key for key, value in vars(module).items() if callable(value))) or "none"
        raise ValueError(f"there is no function {name!r} in it; found: {found}")
    return function


def per_agent(what: str, stated: Any, names: Sequence[str]) -> np.ndarray:
    """One number for all, a list of them, or an object by name -> (N,), all finite and at least 0.

    Raises ValueError naming `what`, what was found, and what there may be.
    """
    values = stated if isinstance(stated, list) else [stated] * len(names)
    if isinstance(stated, Mapping):
        wrong = sorted(set(stated) ^ set(names))
        if wrong:
            known = "is missing" if wrong[0] in names else f"is no name here; there are {some(names)}"
            raise ValueError(f"{what}: {wrong[0]!r} {known}")
        values = [stated[name] for name in names]
    if len(values) != len(names) or not all(_is_number(value) for value in values):
        wanted = f"a number of at least 0, {len(names)} of them, or an object with one for each of {some(names)}"
        raise ValueError(f"{what} is {stated!r}: give {wanted}")
    return np.array(values, dtype=float)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < math.inf
