"""`--why`: the exact Shapley values of the inputs of a decision, in units."""

from __future__ import annotations

import importlib
import itertools
import math
import shutil

import numpy as np
import pytest
from teams import ALGORITHMS, make_team, shake

from core.experiment.deployment.saved_teams import open_run
from core.experiment.deployment.why import explain, shapley

pytestmark = pytest.mark.filterwarnings("ignore:.*the training saw")
CHANGES = {
    "retail": {"on hand": 0.2, "demand average": 1.1, "day of week": 5, "supplier fill rate": 0.4},
    "banking": {"amount": 2500.0, "urgent": 1.0, "internal in flight": 9.0, "external wait": 400.0},
}


@pytest.fixture(params=CHANGES)
def run(request, runs):
    """A run whose team is shaken, so that its decisions hang on every input."""
    run = open_run(runs[request.param])
    shake(run.agents, run.agents.policy)
    return run


def changed(run) -> dict[str, float]:
    return run.typical_inputs(1) | CHANGES[run.problem]


def test_players_who_add_up_get_what_they_add():
    worth = np.array([3.0, -1.0, 0.5])
    assert shapley(lambda present: present @ worth, 3) == pytest.approx(worth)


def test_a_left_glove_is_worth_more_than_each_of_two_right_ones():
    """Shapley's own kind of example: a pair is worth 1, one left glove and two right ones are there."""
    pairs = shapley(lambda present: (present[:, 0] & (present[:, 1] | present[:, 2])).astype(float), 3)
    assert pairs == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_the_shares_add_up_to_the_decision_less_the_baselines(run):
    for agent in range(len(run.names)):
        why = explain(run, changed(run), agent)
        assert sum(why.shares.values()) == pytest.approx(why.value - why.base_value, abs=1e-5)
        assert why.decision == run.decide(changed(run), agent)[run.names[agent]] or run.problem == "retail"
        if run.problem == "retail":
            assert [why.value, why.base_value] == pytest.approx([why.decision, why.base], abs=1e-5)
            assert why.decision == pytest.approx(run.decide(changed(run), agent)[run.names[agent]], abs=1e-5)


def test_a_share_is_the_mean_over_all_orders_of_change(run):
    """By definition, step by step, over the groups that changed; those that did not add nothing."""
    why, inputs = explain(run, changed(run), 1), changed(run)
    moved = list(why.changed(run.units.groups))
    assert len(moved) == 4

    def worth(now: dict[str, float]) -> float:
        whole = explain(run, inputs, 1, now)  # the value that it compares with, of these inputs
        return whole.base_value

    for name in moved:
        total = 0.0
        for order in itertools.permutations(moved):
            before = run.typical_inputs(1)
            for other in order[: order.index(name)]:
                before |= {own: inputs[own] for own in run.units.groups[other]}
            total += worth(before | {own: inputs[own] for own in run.units.groups[name]}) - worth(before)
        assert why.shares[name] == pytest.approx(total / math.factorial(len(moved)), abs=1e-5), name
    assert all(share == pytest.approx(0.0, abs=1e-6) for name, share in why.shares.items() if name not in moved)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_explained(algorithm, runs):
    run = open_run(runs["retail"])
    object.__setattr__(run, "agents", make_team(algorithm, "continuous", 14, 1, 5))
    shake(run.agents, run.agents.policy)
    why = explain(run, changed(run), 0)
    assert sum(why.shares.values()) == pytest.approx(why.value - why.base_value, abs=1e-5)
    assert why.decision == pytest.approx(run.decide(changed(run), 0)["warehouse 1"], abs=1e-5)


def test_a_recurrent_team_is_refused(runs):
    run = open_run(runs["retail"])
    object.__setattr__(run, "agents", make_team("mappo", "continuous", 14, 1, 5, recurrent=True))
    with pytest.raises(ValueError, match="recurrent agents remember"):
        explain(run, changed(run), 0)


@pytest.mark.parametrize("problem", CHANGES)
def test_the_command_says_it_in_words_and_draws_it(problem, runs, tmp_path, capsys):
    from PIL import Image

    shutil.copytree(runs[problem], tmp_path / "run")
    decide, run = importlib.import_module(f"{problem}.decide"), open_run(tmp_path / "run")
    inputs, base = changed(run), run.typical_inputs(1)
    for name, values in (("now", inputs), ("base", base)):
        lines = [f"{run.words.AGENT},{','.join(values)}", f"2,{','.join(map(str, values.values()))}"]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    command = [str(tmp_path / "run"), "--inputs", str(tmp_path / "now.csv"), "--why"]
    assert decide.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{run.names[1]}: {run.words.DECISION} ")
    groups = explain(run, inputs, 1).changed(run.units.groups)
    assert all(f"  {name}: " in printed for name in groups) and "all together" in printed
    picture = tmp_path / "run" / f"why_{run.names[1].replace(' ', '_')}.png"
    assert str(picture) in printed and Image.open(picture).width >= 1000
    assert decide.main([*command, "--baseline", str(tmp_path / "base.csv")]) == 0
    assert capsys.readouterr().out == printed, "the default baseline, given as a file"
    (tmp_path / "base.csv").write_text((tmp_path / "base.csv").read_text().replace("\n2,", "\n1,"))
    assert decide.main([*command, "--baseline", str(tmp_path / "base.csv")]) == 1
    assert f"base.csv has no line of {run.names[1]}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        decide.main([*command[:-1], "--baseline", "x.csv"])
