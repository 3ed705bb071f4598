"""`main.py --export`: every agent as a folder that needs NumPy alone, and decides as the team does."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from teams import ALGORITHMS, KINDS, make_team, shake

import main as main_script
from core.experiment.deployment import export as export_module
from core.experiment.deployment.export import policy_of
from core.experiment.deployment.policy import Policy
from core.experiment.deployment.saved_teams import open_run
from core.maddpg import MADDPGTeam

pytestmark = pytest.mark.filterwarnings("ignore:.*the training saw")
PROBLEMS = ("retail", "banking")
FILES = {"contract.json", "observations.py", "policy.pt2", "policy.py", "weights.npz"}
ALONE = """
import runpy, sys

class NumPyAlone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "pandas", "matplotlib", "tqdm", "core", "retail", "banking"):
            raise ImportError(name)

sys.meta_path.insert(0, NumPyAlone())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory) -> dict[str, Path]:
    """The exported run of each problem -> its folder."""
    found = {}
    for problem, run in runs.items():
        found[problem] = tmp_path_factory.mktemp(problem) / "agents"
        assert main_script.main(["--export", str(run), "--to", str(found[problem])]) == 0
    return found


def ask(folder: Path, *flags: str, text: str | None = None) -> subprocess.CompletedProcess:
    """Run an exported policy as if nothing but NumPy were there."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "policy.py"), *flags]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, cwd=folder.parent)


def lines_of(inputs: list[dict[str, float]]) -> str:
    return "\n".join([",".join(inputs[0]), *(",".join(map(str, each.values())) for each in inputs)]) + "\n"


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_agent_is_a_folder_with_a_contract(problem, exported, runs):
    run = open_run(runs[problem])
    assert sorted(p.name for p in exported[problem].iterdir()) == [name.replace(" ", "-") for name in run.names]
    for i, name in enumerate(run.names):
        folder = exported[problem] / name.replace(" ", "-")
        assert {path.name for path in folder.iterdir()} == FILES
        contract = json.loads((folder / "contract.json").read_text(), parse_constant=pytest.fail)
        assert [contract["agent"], contract["index"]] == [name, i]
        assert list(contract["inputs"]) == list(run.observations)
        for input_name, entry in contract["inputs"].items():
            assert entry["unit"] == run.observations[input_name][0] and entry["meaning"], input_name
            low, high = entry["possible"]
            assert low <= entry["typical"] <= (float("inf") if high is None else high)
        assert contract["metrics"]["after training"]["team_return"] == list(
            run.metrics["after training"]["team_return"]
        )
        assert contract["trained"]["commit"] == run.config["commit"]
        for file, digest in contract["sha256"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_exported_agent_answers_as_the_run_does_with_numpy_alone(problem, exported, runs, tmp_path):
    run = open_run(runs[problem])
    for i, name in enumerate(run.names):
        first, second = run.typical_inputs(i), run.typical_inputs(i)
        second |= {"on hand": 0.1} if problem == "retail" else {"amount": 3000.0, "internal in flight": 12.0}
        (tmp_path / "inputs.csv").write_text(lines_of([first, second]))
        done = ask(exported[problem] / name.replace(" ", "-"), "--inputs", str(tmp_path / "inputs.csv"))
        assert done.returncode == 0, done.stderr
        answers = list(csv.reader(io.StringIO(done.stdout)))
        assert answers[0] == [{"retail": "order units", "banking": "channel"}[problem], "note"]
        for inputs, answer in zip((first, second), answers[1:], strict=True):
            expected = run.decide(inputs, agent=i)[name]
            assert (
                answer[0] == expected if problem == "banking" else float(answer[0]) == pytest.approx(expected, rel=1e-3)
            )


def test_the_program_of_torch_export_decides_the_same(exported, runs):
    run = open_run(runs["retail"])
    program = torch.export.load(exported["retail"] / "warehouse-2/policy.pt2").module()
    seen = np.stack([run.encode(run.typical_inputs(1) | {"on hand": stock}, 1) for stock in (0.0, 0.5, 1.0)])
    wanted = [run.agents[1].select_action(observation) for observation in seen]
    np.testing.assert_allclose(program(torch.from_numpy(seen)).detach().numpy(), wanted, atol=1e-6)


# --- every algorithm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_numpy_acts_as_every_algorithm_does(algorithm, kind, share):
    team = make_team(algorithm, kind, num_agents=3, share_parameters=share)
    shake(team, team.policy)
    seen = np.random.default_rng(0).normal(size=(500, 3, 3)).astype(np.float32)
    together = team.select_actions(seen, training=False)
    for i in range(3):
        policy = policy_of(team, i)
        assert policy.layers[0][0].shape == (3, 16), "the id of shared parameters is part of the bias"
        np.testing.assert_allclose(policy.act(seen[:, i]), together[:, i], atol=1e-6)
        program = export_module.Program(policy)
        program.take(policy)
        np.testing.assert_allclose(program(torch.from_numpy(seen[:, i])).detach(), together[:, i], atol=1e-6)


def test_what_the_runner_cannot_do_is_refused():
    with pytest.raises(ValueError, match="recurrent agents remember"):
        policy_of(make_team("qmix", "discrete", recurrent=True), 0)

    class Second(MADDPGTeam):  # takes the second best
        def decide(self, logits, training, masks):
            return logits.argsort(dim=-1)[..., -2]

    with pytest.raises(ValueError, match="Second decides by a rule that the NumPy runner does not have"):
        policy_of(Second(3, 3, 2, {"action_type": "discrete", "seed": 0}), 0)
    team = make_team("mappo")
    team.networks["actor"].activation = torch.sigmoid_
    with pytest.raises(ValueError, match="activation .* is unknown"):
        policy_of(team, 0)


# --- the check at the export ------------------------------------------------------------------------------------------


def test_a_difference_ends_the_export_and_nothing_is_written(runs, tmp_path, monkeypatch, capsys):
    def spoilt(team, index):
        policy = policy_of(team, index)
        layers = [(weight + (0.01 if index == 3 else 0.0), bias) for weight, bias in policy.layers]
        return Policy(layers, policy.activation, policy.rule, policy.size)

    monkeypatch.setattr(export_module, "policy_of", spoilt)
    assert main_script.main(["--export", str(runs["retail"]), "--to", str(tmp_path / "agents")]) == 1
    assert "warehouse 4: weights.npz does not decide as the team does" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_team_that_acts_otherwise_together_is_not_exported(runs, tmp_path, monkeypatch, capsys):
    honest = MADDPGTeam.act
    monkeypatch.setattr(MADDPGTeam, "act", lambda self, seen, *rest: honest(self, seen + seen.flip(1), *rest))
    assert main_script.main(["--export", str(runs["retail"]), "--to", str(tmp_path / "agents")]) == 1
    assert "does not decide as the team does" in capsys.readouterr().err


def test_another_folder_is_left_alone(runs, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    for to in (tmp_path, tmp_path / "mine.txt"):
        assert main_script.main(["--export", str(runs["retail"]), "--to", str(to)]) == 2
        assert "it is there already; name a folder that is not, or an empty one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(SystemExit, match="2"):
        main_script.main(["--export", str(runs["retail"])])
    assert "--to DIR is missing" in capsys.readouterr().err


def test_names_that_no_file_can_have_get_numbers(runs, tmp_path):
    run = open_run(runs["retail"])
    object.__setattr__(run, "names", ("../a", "a", "b/c", "München", "A"))
    folders = export_module.export(run, tmp_path / "agents")
    assert [folder.name for folder in folders] == ["1-a", "2-a", "3-b-c", "4-München", "5-A"]
    assert all(folder.parent == tmp_path / "agents" and folder.is_dir() for folder in folders)


# --- the runner -------------------------------------------------------------------------------------------------------


def test_the_running_form_refuses_by_name_and_goes_on(exported, runs):
    inputs = open_run(runs["retail"]).typical_inputs(0)
    rows = [inputs, inputs | {"on hand": float("nan")}, {**inputs, "demand average": ""}, inputs]
    done = ask(exported["retail"] / "warehouse-1", "--inputs", "-", text=lines_of(rows))
    _, good, *bad, last = csv.reader(io.StringIO(done.stdout))
    assert done.returncode == 1 and good == last and float(good[0]) > 0.0
    assert bad[0] == ["", "refused: on hand is nan: give a finite number of at least 0 (units)"]
    assert bad[1] == ["", "refused: demand average is missing: give it in units a day"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_fallback_decides_on_bad_input_if_asked_to_and_says_so(problem, exported, runs, tmp_path):
    run = open_run(runs[problem])
    first = next(iter(run.observations))
    inputs = run.typical_inputs(1) | {first: float("inf")}
    folder = exported[problem] / run.names[1].replace(" ", "-")
    (tmp_path / "bad.csv").write_text(lines_of([inputs]))
    refused = ask(folder, "--inputs", str(tmp_path / "bad.csv"))
    assert refused.returncode == 1 and f"line 2: {first} is inf" in refused.stderr and "Traceback" not in refused.stderr
    done = ask(folder, "--inputs", str(tmp_path / "bad.csv"), "--fallback")
    ((_, _), (decision, note)) = csv.reader(io.StringIO(done.stdout))
    assert done.returncode == 0 and note.startswith(f"unusable inputs ({first} is inf")
    assert note.endswith(f"the rule decided: {run.words.FALLBACK}")
    by_rule = run.units.decision(run.units.fallback(run.typical_inputs(1), 1), 1)
    assert decision == (by_rule if problem == "banking" else f"{by_rule:.4g}")


def test_a_note_says_what_the_training_never_saw(exported, runs):
    inputs = open_run(runs["retail"]).typical_inputs(0) | {"on hand": 60.0}
    done = ask(exported["retail"] / "warehouse-1", "--inputs", "-", text=lines_of([inputs]))
    assert "on hand is 60, the training saw 0" in done.stdout


def test_a_line_of_another_agent_is_refused(exported, runs):
    inputs = {"warehouse": "warehouse 2"} | open_run(runs["retail"]).typical_inputs(0)
    done = ask(exported["retail"] / "warehouse-1", "--inputs", "-", text=lines_of([inputs]))
    assert done.returncode == 1 and "this is the policy of 'warehouse 1' alone" in done.stdout


def test_files_that_were_changed_are_refused(runs, tmp_path):
    out = tmp_path / "agents"
    assert main_script.main(["--export", str(runs["banking"]), "--to", str(out)]) == 0
    weights = out / "router-1/weights.npz"
    weights.write_bytes((out / "router-2/weights.npz").read_bytes() + b" ")
    done = ask(out / "router-1", "--inputs", "-", text="pending\n1\n")
    assert done.returncode == 1 and "weights.npz is not the file that was exported" in done.stderr
    weights.unlink()
    done = ask(out / "router-1", "--inputs", "-", text="pending\n1\n")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot be read" in done.stderr


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_observations_of_a_problem_need_numpy_alone(problem):
    """The file is laid beside a policy as it is."""
    module = importlib.import_module(f"{problem}.observations")
    code = "import importlib.util, sys; s = importlib.util.spec_from_file_location('o', sys.argv[1]); "
    code += "m = importlib.util.module_from_spec(s); s.loader.exec_module(m); "
    code += "assert not {'torch', 'retail', 'banking', 'core', 'pandas'} & set(sys.modules); print(len(m.OBSERVATIONS))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, module.__file__], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(len(module.OBSERVATIONS)), done.stderr


def test_an_example_of_inputs_can_be_asked_for(exported, runs, tmp_path):
    folder = exported["banking"] / "router-3"
    assert ask(folder, "--example", str(tmp_path / "mine.csv")).returncode == 0
    done = ask(folder, "--inputs", str(tmp_path / "mine.csv"))
    inputs = open_run(runs["banking"]).typical_inputs(2)
    assert done.stdout.splitlines()[1] == open_run(runs["banking"]).decide(inputs, 2)["router 3"] + ","
    again = ask(folder, "--example", str(tmp_path / "mine.csv"))
    assert again.returncode == 1 and "exists" in again.stderr and again.stderr.count("\n") == 1
