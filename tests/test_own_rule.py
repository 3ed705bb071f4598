"""The user's own rule, `--rule`: what its numbers mean, where it shows up, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import retail.train
from banking.environment import TransactionRoutingEnv
from banking.own_rule import from_thresholds
from core.experiment.evaluation import evaluate
from core.experiment.runs.command import UsageError
from core.experiment.runs.own_rule import load_rule
from retail.environment import OBSERVATION_NAMES, MultiWarehouseEnv
from retail.own_rule import from_levels

TINY = ["--episodes", "2", "--num-envs", "2", "--eval-episodes", "2", "--no-plots"]


def written(folder, content) -> str:
    path = folder / "rule.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def position(observations: np.ndarray) -> np.ndarray:
    """(..., N) units on hand and on order."""
    return 4 * 0.382 * sum(observations[..., OBSERVATION_NAMES.index(k)] for k in ("on_hand/4s", "pipeline/4s"))


def test_at_min_or_below_a_warehouse_orders_up_to_max(tmp_path):
    env = MultiWarehouseEnv(num_envs=4)
    rule = load_rule(written(tmp_path, {"min": 1.0, "max": [4.0, 3.0, 2.0, 1.5, 1.0]}), env, from_levels)
    seen = position(observations := env.reset(7))
    due = seen <= 1.0
    expected = np.where(due, np.minimum(np.array([4.0, 3.0, 2.0, 1.5, 1.0]) - seen, 2.4), 0.0)
    assert 0 < due.sum() < due.size
    assert rule(observations)[..., 0] * 2.4 == pytest.approx(expected, abs=1e-6)


def test_levels_may_be_named_by_warehouse(tmp_path):
    env = MultiWarehouseEnv(num_envs=1)
    named = {name: 2.0 + k for k, name in enumerate(env.world()["agents"])}
    by_name = load_rule(written(tmp_path, {"level": named}), env, from_levels)
    in_order = load_rule(written(tmp_path, {"level": [2, 3, 4, 5, 6]}), env, from_levels)
    assert np.array_equal(by_name(observations := env.reset(0)), in_order(observations))


def test_amounts_go_where_the_table_sends_them(tmp_path):
    env = TransactionRoutingEnv(8)
    table = {"thresholds": [100, [300, 400, 500]], "channels": ["blockchain", "internal", "external"]}
    rule = load_rule(written(tmp_path, table), env, from_thresholds)
    observations = env.reset(seed=3)
    for _ in range(20):
        observations, *_ = env.step(rule(observations))
    amounts = 87.0 * 10.0 ** observations[..., 2].astype(float)
    expected = np.where(amounts <= 100, 2, np.where(amounts <= [300, 400, 500], 0, 1))
    there = observations[..., 1] > 0.5
    assert np.array_equal(rule(observations)[there], expected[there]) and len(set(expected[there])) == 3


def test_a_function_joins_tables_sentences_pictures_and_the_report(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def half(seen):\n    return seen[..., :1] * 0 + 0.5\n")
    stated, out = f"{tmp_path / 'mine.py'}:half", tmp_path / "out"
    assert retail.train.main([*TINY, "--plots", "--rule", stated, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    run = out / (out / "latest").read_text().strip()
    table = pd.read_csv(run / "evaluation.csv").set_index("policy")["total_cost"]
    expected = evaluate(MultiWarehouseEnv(num_envs=2), lambda seen: np.full((*seen.shape[:-1], 1), 0.5), 2)
    assert table["your rule"].tolist() == pytest.approx(expected["total_cost"].tolist())
    assert "  your rule" in printed and "than your rule" in " ".join(printed.split())
    page = (run / "report.html").read_text()
    assert "than your rule" in page and "by the rule 'your rule'" in page
    assert json.loads((run / "config.json").read_text())["rule"] == stated


def test_a_resumed_run_runs_no_file_that_only_its_folder_names(tmp_path, capsys):
    mark = tmp_path / "it ran"
    body = f"open({str(mark)!r}, 'w')\ndef half(seen):\n    return seen[..., :1] * 0 + 0.5\n"
    (tmp_path / "mine.py").write_text(body)
    flags = ["--out", str(tmp_path / "out"), "--quiet"]
    assert retail.train.main([*TINY, *flags, "--rule", f"{tmp_path / 'mine.py'}:half"]) == 0
    mark.unlink()
    assert retail.train.main(["--resume", "--no-plots", *flags]) == 0
    assert not mark.exists() and "left out unless you give --rule again" in capsys.readouterr().err
    assert retail.train.main(["--resume", "--no-plots", *flags, "--rule", f"{tmp_path / 'mine.py'}:half"]) == 0
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"min": 1}, "give min and max together"),
        ({"min": 5, "max": [6, 6, 6, 6, 4]}, "is above max"),
        ({"gap": 1}, "give min and max, or one of level"),
        ({"leve": 3}, "did you mean 'level'?"),
        ({"level": [1, 2]}, "a number of at least 0, 5 of them"),
        ({"level": -1}, "level is -1"),
        ({"level": True}, "level is True"),
        ('{"level": NaN}', "level is nan"),
        ({"level": {"hamburg": 3}}, "'hamburg' is no name here; there are warehouse 1"),
        ({"level": {f"warehouse {i}": 1 for i in (1, 2, 3, 4)}}, "'warehouse 5' is missing"),
        ("[1]", "a list"),
        ("{level: 1}", "not valid JSON"),
    ],
)
def test_levels_that_make_no_rule_are_refused(tmp_path, content, found):
    with pytest.raises(UsageError, match="--rule") as refusal:
        load_rule(written(tmp_path, content), MultiWarehouseEnv(num_envs=1), from_levels)
    assert found in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"threshold": [1, 2]}, "found threshold: write for instance"),
        ({"thresholds": 5}, "no list of thresholds"),
        ({"thresholds": [100]}, "1 thresholds for 3 channels: give one less"),
        ({"thresholds": [100], "channels": ["internal", "cash"]}, "give a list of internal, external, blockchain"),
        ({"thresholds": [100, 50]}, "from small to large"),
        ({"thresholds": [100, "1000"]}, "thresholds[1] is '1000'"),
    ],
)
def test_a_table_that_makes_no_rule_is_refused(tmp_path, content, found):
    with pytest.raises(UsageError, match="--rule") as refusal:
        load_rule(written(tmp_path, content), TransactionRoutingEnv(1), from_thresholds)
    assert found in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "stated", "found"),
    [
        ("", "mine.py:half", "no function 'half' in it; found: none"),
        ("def half(seen):\n    return 1 / 0\n", "mine.py:half", "ZeroDivisionError: division by zero"),
        ("def half(seen):\n    return 0.5\n", "mine.py:half", "actions have shape ()"),
        ("import nothing_of_that_name\n", "mine.py:half", "ModuleNotFoundError"),
        ("half = 0.5\n", "mine.py:half", "no function 'half'"),
        ("", "mine.py", "a JSON file of numbers, or FILE.py:function"),
        ("", "other.py:half", "No such file"),
        ("", "none.json", "No such file"),
    ],
)
def test_a_mistake_in_a_rule_is_one_line_before_anything_is_written(tmp_path, capsys, monkeypatch, body, stated, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(body)
    assert retail.train.main([*TINY, "--rule", stated, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert found in message and "Traceback" not in message and len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()
