"""One agent's policy with NumPy alone: `python policy.py --inputs FILE.csv`, or `-` for lines as they come.

`main.py --export` lays this file, `observations.py` of the problem, the agent's `weights.npz` and `contract.json` into
one folder, which is all that a decision needs: no PyTorch, nothing else of the project, nothing of the other agents.

Every line of inputs, named as in the contract and in its units, is answered by one line: the decision in units, and a
note where there is something to say. What cannot be used (a missing field, not-a-number, an impossible value) is
refused by name; with `--fallback` the rule that the contract documents decides instead, unusable fields being taken at
their typical values, and the note says so.

Exit codes: 0 done, 1 a line or a file was refused, 2 wrong usage.
Shapes: O numbers of an observation, K outputs of the network.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RULES = ("argmax", "sigmoid", "levels")  # see `Policy`
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
MARGIN = 0.05  # so far outside of what the training saw, relative to its width, is still near
UNUSABLE = "unusable inputs"  # how a note begins where the fallback decided


class Policy:
    """A network, and the greedy rule that makes an action of what it says.

    Args:
        layers: (weight (in, out), bias (out,)) float32 from input to output.
        activation: between them, "relu" or "tanh".
        rule: "argmax" of the outputs is the action; "sigmoid" of the first `size` outputs is; or "levels": the outputs
            are `size` heads, and each head's largest says which of the even levels from 0 to 1.
        size: of a continuous action.
    """

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]], activation: str, rule: str, size: int = 1):
        self.layers, self.activation, self.rule, self.size = list(layers), activation, rule, size

    def outputs(self, observations: np.ndarray) -> np.ndarray:
        """(..., O) -> (..., K)."""
        hidden = np.asarray(observations, dtype=np.float32)
        for weight, bias in self.layers[:-1]:
            hidden = ACTIVATIONS[self.activation](hidden @ weight + bias)
        weight, bias = self.layers[-1]
        return hidden @ weight + bias

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """(..., K) -> integers (...), or floats (..., size) in [0, 1]."""
        if self.rule == "argmax":
            return outputs.argmax(axis=-1)
        if self.rule == "sigmoid":
            return 0.5 * (1.0 + np.tanh(0.5 * outputs[..., : self.size]))
        heads = outputs.reshape(*outputs.shape[:-1], self.size, -1)
        return (heads.argmax(axis=-1) / (heads.shape[-1] - 1)).astype(np.float32)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(..., O) -> the actions that `decide` makes of the outputs."""
        return self.decide(self.outputs(observations))


# --- named inputs -----------------------------------------------------------------------------------------------------


def complaint(name: str, value: Any, unit: str, low: float, high: float) -> str:
    """Why a value of an input cannot be used; "" if it can."""
    if value is None or value == "":
        return f"{name} is missing: give it in {unit}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"{name} is {value!r}, no number: give it in {unit}"
    if low <= number <= high and math.isfinite(number):
        return ""
    wanted = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    return f"{name} is {number:g}: give a finite number {wanted} ({unit})"


def checked(
    given: Mapping[str, Any], named: Mapping[str, tuple], defaults: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, str]]:
    """Inputs as a user gave them -> those that can be used as floats, and name -> complaint of the others.

    Args:
        named: name -> (unit, (smallest, largest possible), meaning).
        defaults: of inputs that may be left out.
    """
    unknown = {}
    for name in given:
        if name not in named:
            close = difflib.get_close_matches(str(name), named, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(named)}"
            unknown[str(name)] = f"{str(name)!r} is no input; {hint}"
    usable, refused = {}, {}
    for name, (unit, (low, high), _) in named.items():
        value = given.get(name, defaults.get(name))
        problem = complaint(name, value, unit, low, high)
        if problem:
            refused[name] = problem
        else:
            usable[name] = float(value)
    return usable, unknown | refused


def unseen(observation: np.ndarray, low: np.ndarray, high: np.ndarray, units: Any) -> list[str]:
    """What in an observation (O,) lies outside all that the training saw, by name and in units."""
    room = MARGIN * (high - low)
    outside = (observation < low - room) | (observation > high + room)
    if not outside.any():
        return []
    value, least, most = (units.decode(x) for x in (observation, low, high))
    names = dict.fromkeys(units.columns[k] for k in np.flatnonzero(outside) if units.columns[k] != units.periodic)
    return [f"{n} is {value[n]:.3g}, the training saw {least[n]:.3g} to {most[n]:.3g}" for n in names]


def read_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """The rows of a CSV that is still being written: (number of the line, names in the header, fields), and first the
    header's own, with no fields.

    Raises:
        ValueError: there is no header.
    """
    rows = csv.reader(lines)
    names = [" ".join(name.strip().lower().replace("_", " ").split()) for name in next(rows, [])]
    if not any(names):
        raise ValueError("no header was found: the first line names the inputs")
    yield 1, names, []
    yield from ((rows.line_num, names, [field.strip() for field in row]) for row in rows if row)


def by_name(names: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """The fields of a row by the names of the header. Raises ValueError where there are more or fewer."""
    if len(row) != len(names):
        raise ValueError(f"{len(row)} fields were found, the header has {len(names)}")
    return dict(zip(names, row, strict=True))


def answer_lines(
    lines: Iterable[str], answer: Callable[[dict[str, str]], Sequence[Any]], header: Sequence[str], running: bool
) -> int:
    """Answer every row of a CSV by a line on stdout, at once, under `header` -> exit code.

    running: a row that `answer` refuses (ValueError) is answered by empty fields and the reason, and the next one is
    read; otherwise it ends everything, as a ValueError with its number.
    """
    out, code = csv.writer(sys.stdout, lineterminator="\n"), 0
    for line, names, row in read_rows(lines):
        try:
            out.writerow(answer(by_name(names, row)) if row else header)
        except ValueError as error:
            if not running:
                raise ValueError(f"line {line}: {error}") from None
            code = 1
            out.writerow([*[""] * (len(header) - 1), f"refused: {error}"])
        sys.stdout.flush()
    return code


# --- the exported agent -----------------------------------------------------------------------------------------------


class Exported:
    """The agent of an exported folder.

    Raises:
        ValueError: a file is missing, or not the one that was exported.
    """

    def __init__(self, folder: Path):
        try:
            self.contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
            for name, expected in self.contract["sha256"].items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                    raise ValueError(f"{folder / name} is not the file that was exported: export the run again")
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read ({error.strerror}): export the run again") from None
        spec = importlib.util.spec_from_file_location("observations", folder / "observations.py")
        observations = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(observations)
        c = self.contract
        self.index, self.units, self.word = c["index"], observations.Units(**c["scales"]), observations.AGENT
        with np.load(folder / "weights.npz") as file:
            layers = [(file[f"weight{k}"], file[f"bias{k}"]) for k in range(len(file.files) // 2)]
        self.policy = Policy(layers, c["activation"], c["rule"], c["action_size"])
        self.low, self.high = (np.array(c["observation"][name], np.float32) for name in ("low", "high"))
        self.typical = {name: entry["typical"] for name, entry in c["inputs"].items()}

    def answer(self, given: Mapping[str, Any], fallback: bool, whole: bool) -> tuple[Any, str]:
        """Named inputs -> the decision in units, and a note. Raises ValueError for inputs that cannot be used."""
        given = dict(given)
        who = given.pop(self.word, "") or self.contract["agent"]
        if who != self.contract["agent"]:
            raise ValueError(f"{self.word} is {who!r}: this is the policy of {self.contract['agent']!r} alone")
        inputs, refused = checked(given, self.units.observations, self.units.defaults)
        if not refused:
            observation = self.units.encode(inputs, self.index)
            note = "; ".join(unseen(observation, self.low, self.high, self.units))
            return self.units.decision(self.policy.act(observation), self.index, whole), note
        if not fallback:
            raise ValueError("; ".join(refused.values()))
        action = self.units.fallback({**self.typical, **inputs}, self.index)
        note = f"{UNUSABLE} ({'; '.join(refused.values())}); the rule decided: {self.contract['fallback']}"
        return self.units.decision(action, self.index, whole), note


def serve_observations(policy: Policy, size: int) -> None:
    """Answer every line of O numbers by the action, one line of numbers: the form in which a machine asks."""
    for line in sys.stdin:
        observation = np.array(line.split(), dtype=np.float32)
        if observation.shape != (size,) or not np.isfinite(observation).all():
            print(f"refused: {size} finite numbers were expected, found {line.strip()!r}", flush=True)
        else:
            print(*np.ravel(policy.act(observation)).tolist(), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="policy.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--inputs", metavar="FILE.csv", help="a header of named inputs, then a line a decision; -: stdin")
    what.add_argument("--example", metavar="FILE.csv", help="write such a file with what the training saw on average")
    what.add_argument("--observations", action="store_true", help="lines of observations on stdin, for machines")
    parser.add_argument("--fallback", action="store_true", help="where inputs cannot be used, let the rule decide")
    parser.add_argument("--whole-units", action="store_true", help="round orders to whole units")
    options = parser.parse_args(argv)
    try:
        agent = Exported(Path(__file__).resolve().parent)
        if options.example:
            with open(options.example, "x", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerows([agent.typical, [f"{value:.4g}" for value in agent.typical.values()]])
            return 0
        if options.observations:
            serve_observations(agent.policy, len(agent.low))
            return 0

        def answer(row: dict[str, str]) -> Sequence[Any]:
            decision, note = agent.answer(row, options.fallback, options.whole_units)
            return [decision if isinstance(decision, str) else f"{float(decision):.4g}", note]

        header = [" ".join(agent.contract["decision"]).strip(), "note"]
        if options.inputs == "-":
            return answer_lines(sys.stdin, answer, header, running=True)
        with open(options.inputs, encoding="utf-8-sig", newline="") as file:
            return answer_lines(file, answer, header, running=False)
    except (ValueError, OSError) as error:
        print(f"policy.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
