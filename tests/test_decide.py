"""`retail/decide.py` and `banking/decide.py`: lines of named inputs in units, a line for each with the decision."""

from __future__ import annotations

import csv
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.experiment.deployment.saved_teams import open_run

ROOT = Path(__file__).resolve().parents[1]
PROBLEMS = ("retail", "banking")
BESIDE = {"retail": "adaptive base-stock, tuned jointly", "banking": "local index"}


@pytest.fixture(params=PROBLEMS)
def problem(request) -> str:
    return request.param


@pytest.fixture
def example(problem, runs, tmp_path, capsys) -> Path:
    """The file that `--example` writes."""
    assert decide(problem, runs[problem], "--example", tmp_path / "today.csv") == 0
    assert "today.csv: change its numbers" in capsys.readouterr().out
    return tmp_path / "today.csv"


def decide(problem: str, *arguments) -> int:
    return importlib.import_module(f"{problem}.decide").main([str(argument) for argument in arguments])


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_line_is_answered_by_the_agents_decision_beside_the_rules(problem, runs, example, capsys):
    assert decide(problem, runs[problem], "--inputs", example) == 0
    answers, run = rows(capsys.readouterr().out), open_run(runs[problem])
    word, decision, rule, note = answers[0]
    assert decision == {"retail": "order, units", "banking": "channel"}[problem] and note == "note"
    assert rule.startswith(BESIDE[problem])
    assert [answer[word] for answer in answers] == list(run.names)
    for i, (given, answer) in enumerate(zip(rows(example.read_text()), answers, strict=True)):
        own = {name: value for name, value in given.items() if name != word}
        expected = run.decide(own, agent=i)[run.names[i]]
        assert answer[decision] == (expected if problem == "banking" else f"{expected:.4g}")
        action = run.settings.rules(run.settings.make_env())[BESIDE[problem]](run.encode(own, i)[None])
        if problem == "banking":  # the same rule for every router
            assert answer[rule] == run.units.decision(action[0])


def test_the_rule_beside_a_warehouses_order_is_the_warehouses_own(runs, tmp_path, capsys):
    run = open_run(runs["retail"])
    inputs = run.typical_inputs(0) | {"on hand": 0.5, "demand average": 0.3}
    lines = [",".join(["warehouse", *inputs]), *(",".join([n, *map(str, inputs.values())]) for n in run.names)]
    (tmp_path / "same.csv").write_text("\n".join(lines))
    assert decide("retail", runs["retail"], "--inputs", tmp_path / "same.csv") == 0
    _, _, rule, _ = (answers := rows(capsys.readouterr().out))[0]
    env = run.settings.make_env()
    together = run.settings.rules(env)[BESIDE["retail"]](
        run.units.encode({n: np.full(5, v) for n, v in inputs.items()})
    )
    assert [float(a[rule]) for a in answers] == pytest.approx((2.4 * together[:, 0]).tolist(), abs=1e-3)


def test_whole_units_are_whole(runs, tmp_path, capsys):
    assert decide("retail", runs["retail"], "--example", tmp_path / "e.csv") == 0
    capsys.readouterr()
    assert decide("retail", runs["retail"], "--inputs", tmp_path / "e.csv", "--whole-units") == 0
    assert {float(row["order, units"]) for row in rows(capsys.readouterr().out)} <= {0.0, 1.0, 2.0}


def test_agents_may_be_counted_and_columns_written_in_other_ways(runs, tmp_path, capsys):
    run = open_run(runs["retail"])
    inputs = {name.replace(" ", "_").upper(): value for name, value in run.typical_inputs(1).items()}
    text = f"{','.join(inputs)},Warehouse\n{','.join(map(str, inputs.values()))},2\n\n"
    (tmp_path / "inputs.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert decide("retail", runs["retail"], "--inputs", tmp_path / "inputs.csv") == 0
    (answer,) = rows(capsys.readouterr().out)
    assert answer["warehouse"] == "warehouse 2"
    assert float(answer["order, units"]) == pytest.approx(run.decide(run.typical_inputs(1), 1)["warehouse 2"], abs=1e-3)


def test_a_note_says_what_the_training_never_saw(runs, tmp_path, capsys):
    inputs = open_run(runs["retail"]).typical_inputs(0) | {"on hand": 30.0}
    (tmp_path / "i.csv").write_text(f"warehouse,{','.join(inputs)}\n1,{','.join(map(str, inputs.values()))}\n")
    assert decide("retail", runs["retail"], "--inputs", tmp_path / "i.csv") == 0
    assert "on hand is 30, the training saw 0" in rows(capsys.readouterr().out)[0]["note"]


def test_mistakes_in_a_file_end_in_one_line_that_names_them(problem, runs, example, tmp_path, capsys):
    header, first, *_ = example.read_text().splitlines()
    word, name = header.split(",")[:2]
    agent, value, *others = first.split(",")
    wrong = {
        "no line": "no header was found",
        f"{header}\n{agent},nan,{','.join(others)}": f"line 2: {name} is nan: give a finite number",
        f"{header}\n{agent},{value}": r"line 2: 2 fields were found, the header has \d+",
        f"{header}\nnobody,{value},{','.join(others)}": "line 2: 'nobody' is no agent of this run: give one of",
        header.removeprefix(f"{word},") + "\n" + first.removeprefix(f"{agent},"): f"line 2: {word} is missing",
        header.replace(name, name + "s") + "\n" + first: f"line 2: '{name}s' is no input; did you mean '{name}'",
    }
    for text, message in wrong.items():
        (tmp_path / "wrong.csv").write_text("" if text == "no line" else text + "\n")
        assert decide(problem, runs[problem], "--inputs", tmp_path / "wrong.csv") == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(message, error), error
    assert decide(problem, runs[problem], "--inputs", tmp_path / "none.csv") == 1
    assert "none.csv" in capsys.readouterr().err
    assert decide(problem, "no-such-run", "--inputs", example) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert decide(problem, runs[problem], "--example", example) == 2
    assert "it is there already" in capsys.readouterr().err


def test_a_run_of_the_other_problem_is_refused(runs, capsys):
    assert decide("retail", runs["banking"], "--inputs", "-") == 2
    assert "is a run of banking, not of retail" in capsys.readouterr().err


def test_the_running_form_answers_every_line_at_once_and_goes_on_after_a_bad_one(problem, runs, example):
    """Each answer is read before the next line is written: one that waits in a buffer would hang this."""
    header, *lines = example.read_text().splitlines()
    command = [sys.executable, ROOT / problem / "decide.py", runs[problem], "--inputs", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        process.stdin.write(header + "\n")
        columns = len(next(csv.reader([process.stdout.readline()])))
        for line in [*lines, lines[0].replace(",", ",nan,", 1), lines[0]]:
            process.stdin.write(line + "\n")
            answer = next(csv.reader([process.stdout.readline()]))
            assert len(answer) == columns
            if "nan" in line:
                assert answer[-1].startswith("refused: ") and not any(answer[:-1])
            else:
                assert answer[0] == line.split(",")[0] and answer[1]
        process.stdin.close()
        assert process.wait(timeout=60) == 1, "a line was refused"
