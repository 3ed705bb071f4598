"""What `decide.py` of both problems does: lines of named inputs in units in, a line for each with the decision out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from core.experiment.deployment import why
from core.experiment.deployment.export import policy_of
from core.experiment.deployment.policy import answer_lines, by_name, read_rows
from core.experiment.deployment.saved_teams import TrainedRun
from core.experiment.runs.command import EXIT_CODES, UsageError
from core.experiment.runs.folders import write_text


def parse(script: str, description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of a `decide.py`."""
    parser = argparse.ArgumentParser(prog=script, description=description, epilog=EXIT_CODES, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run's folder, its name, or latest")
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    add("--inputs", metavar="FILE.csv", help="a header of named inputs, then a line a decision; -: lines from stdin")
    add("--example", metavar="FILE.csv", type=Path, help="write such a file with what the training saw on average")
    why = "say what each input adds to each decision, exactly, and draw it (default: no)"
    parser.add_argument("--why", action="store_true", help=why)
    baseline = "of --why: inputs to compare with, a line an agent (default: what the training saw on average)"
    parser.add_argument("--baseline", metavar="FILE.csv", help=baseline)
    parser.add_argument("--whole-units", action="store_true", help="round orders to whole units (default: no)")
    options = parser.parse_args(argv)
    if options.baseline and not options.why:
        parser.error("argument --baseline: it is for --why; leave it out, or add --why")
    return options


def write_example(run: TrainedRun, path: Path) -> None:
    """A file of inputs for `--inputs`: a line an agent, what the training saw on average.

    Raises:
        UsageError: another file is there.
    """
    if path.exists():
        raise UsageError(f"--example {path}: it is there already; name a file that is not")
    lines = [",".join([run.words.AGENT, *run.observations])]
    for i, name in enumerate(run.names):
        lines.append(",".join([name, *(f"{value:.4g}" for value in run.typical_inputs(i).values())]))
    write_text(path, "\n".join(lines) + "\n")
    print(f"{path}: change its numbers, then give it to --inputs", flush=True)


def answer(run: TrainedRun, inputs: str, whole_units: bool) -> int:
    """Answer every line of a file, or of stdin ("-") as it comes -> exit code.

    A line of a file that cannot be used ends everything; one of stdin is answered by the reason.

    Raises:
        ValueError: such a line, with its number; or no header.
    """
    rule, _ = run.rule
    unit = f", {run.words.DECISION_UNIT}".rstrip(", ")
    header = [run.words.AGENT, f"{run.words.DECISION}{unit}", f"{rule}{unit}", "note"]
    decide = decider(run, whole_units)
    if inputs == "-":
        return answer_lines(sys.stdin, decide, header, running=True)
    with open(inputs, encoding="utf-8-sig", newline="") as file:
        return answer_lines(file, decide, header, running=False)


def decider(run: TrainedRun, whole_units: bool) -> Callable[[dict[str, str]], list[Any]]:
    """A line's fields by name -> agent, its decision, the best rule's, and a note on inputs that the training never
    saw. Raises ValueError for a line that cannot be used."""
    _, rule = run.rule
    # Of a single observation, NumPy is eight times quicker than PyTorch; what remembers is left to the team.
    alone = run.agents.gru is None
    act = [policy_of(run.agents, i).act if alone else agent.select_action for i, agent in enumerate(run.agents)]

    def written(action: Any, agent: int) -> str:
        decision = run.units.decision(action, agent, whole_units)
        return decision if isinstance(decision, str) else f"{decision:.4g}"

    def decide(fields: dict[str, str]) -> list[Any]:
        agent = agent_of(run, fields)
        observation = run.encode(fields, agent)
        action = act[agent](observation)
        note = "; ".join(run.unseen(observation, agent))
        return [run.names[agent], written(action, agent), written(rule(observation, agent), agent), note]

    return decide


def say_why(run: TrainedRun, inputs: str, baseline: str | None) -> None:
    """Explain the decision of every line of a file (or of stdin), in words and in a picture in the run's folder.

    Raises:
        ValueError: a line, or the run, that cannot be used.
    """
    compared = {} if baseline is None else {agent: fields for agent, fields in _lines(run, baseline)}
    for agent, fields in _lines(run, inputs):
        if baseline is not None and agent not in compared:
            raise ValueError(f"{baseline} has no line of {run.names[agent]}")
        found = why.explain(run, fields, agent, compared.get(agent))
        print(f"{why.sentences(run, found)}\n  {why.draw(run, found, run.path)}", flush=True)


def _lines(run: TrainedRun, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(agent, its inputs) of every line of a file."""
    with nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8-sig", newline="") as file:
        for line, names, row in read_rows(file):
            try:
                fields = by_name(names, row) if row else None
                agent = None if fields is None else agent_of(run, fields)
                if fields is not None:
                    run.checked_inputs(fields)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from None
            if fields is not None:
                yield agent, fields


def agent_of(run: TrainedRun, fields: dict[str, str]) -> int:
    """Who a line is about, by name or counted from 1; that field is taken out of it."""
    who = fields.pop(run.words.AGENT, None)
    if who is None:
        raise ValueError(f"{run.words.AGENT} is missing: a column of that name says who decides")
    counted = who not in run.names and who.isdecimal() and 0 < int(who) <= len(run.names)
    return int(who) - 1 if counted else run.number_of(who)
