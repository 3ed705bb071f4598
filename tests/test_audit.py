"""The audit of decentralized execution passes every honest team and catches every leak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from games import Drift
from teams import ALGORITHMS, KINDS, make_team, moved_by_optimizers, shake
from torch import Tensor

import main as main_script
from core.experiment.deployment import audit, saved_teams
from core.experiment.deployment.audit import audit_team
from core.experiment.runs import folders
from core.experiment.runs.checkpoint import save_checkpoint
from core.experiment.runs.command import UsageError
from core.experiment.runs.folders import RunFolder
from core.maddpg import MADDPGTeam
from core.qmix import QMIXTeam

ROOT = Path(__file__).resolve().parents[1]
SLOPE, GREEDY, EXPLORING, ALONE, EPISODE = range(5)  # the checks, in their order


def team_of(algorithm, kind="discrete", share=False, **config):
    team = make_team(algorithm, kind, share_parameters=share, **config)
    shake(team, *team.networks)  # away from the start, where all actions are nearly the same
    return team


@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_teams_of_all_algorithms_pass(algorithm, kind, share):
    report = audit_team(team_of(algorithm, kind, share), Drift(kind), separately=False)
    assert report.passed and len(report.checks) == 3, str(report)
    assert "largest 0 (by the own: 0 " not in report.checks[SLOPE].found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_masks_are_the_agents_own_affair(algorithm):
    assert audit_team(team_of(algorithm), Drift(masked=True), separately=False).passed


# --- leaks: each is a way in which centralized information could creep into acting ------------------------------------


class LeakyTeam(MADDPGTeam):
    """Acts well alone, but as a team adds a little of what the others see. The classes below leak in other ways."""

    def act(self, observations: Tensor, training: bool, masks: Tensor | None) -> Tensor:
        return super().act(self.leak(observations), training, masks)

    def leak(self, observations: Tensor) -> Tensor:
        return observations + 0.5 * observations.flip(1)


class FaintlyLeakyTeam(LeakyTeam):
    """Changes no action at single precision, but has a slope."""

    def leak(self, observations):
        return observations + 1e-30 * observations.flip(1)


class DetachedTeam(LeakyTeam):
    """Has no slope, since the others' part is cut off from differentiation."""

    def leak(self, observations):
        return observations + observations.flip(1).detach().round()


class SometimesLeakyTeam(LeakyTeam):
    """Looks at the others only while it explores."""

    def act(self, observations, training, masks):
        seen = self.leak(observations) if training else observations
        return MADDPGTeam.act(self, seen, training, masks)


class MaskLeakTeam(LeakyTeam):
    """Does what the others may not do."""

    def act(self, observations, training, masks):
        return MADDPGTeam.act(self, observations, training, masks & masks.flip(1))


class LeakyQ(QMIXTeam):
    """Chooses by utilities that were averaged over the team."""

    def utilities(self, observations, name="utility", memory=None):
        own = super().utilities(observations, name, memory)
        return own + own.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "kind_of_team, caught",
    [
        (LeakyTeam, {SLOPE, GREEDY, EXPLORING}),
        (FaintlyLeakyTeam, {SLOPE, GREEDY, EXPLORING}),  # not-a-number leaves a trace, however faint the way
        (DetachedTeam, {GREEDY, EXPLORING}),
        (SometimesLeakyTeam, {EXPLORING}),
        (LeakyQ, {SLOPE, GREEDY, EXPLORING}),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_leaking_team_is_caught(kind_of_team, caught, kind):
    team = kind_of_team(3, 2, 2, {"action_type": kind, "seed": 0, "hidden_sizes": [16]})
    shake(team, *team.networks)
    report = audit_team(team, Drift(kind), separately=False)
    assert {k for k, check in enumerate(report.checks) if not check.passed} == caught, str(report)
    assert "NOT decentralized" in str(report)


def test_a_leak_through_the_masks_is_caught():
    team = MaskLeakTeam(3, 2, 2, {"action_type": "discrete", "seed": 0, "hidden_sizes": [16]})
    shake(team, *team.networks)
    report = audit_team(team, Drift(masked=True), separately=False)
    assert not report.checks[GREEDY].passed and not report.checks[EXPLORING].passed


def test_a_team_that_nothing_can_be_measured_of_does_not_pass():
    class Deaf(MADDPGTeam):
        def act(self, observations, training, masks):
            return torch.full((*observations.shape[:2], 2), 0.5)

    report = audit_team(Deaf(3, 2, 2, {"seed": 0}), Drift("continuous"), separately=False)
    assert not report.checks[SLOPE].passed and "nothing could be differentiated" in report.checks[SLOPE].found


# --- separate processes -----------------------------------------------------------------------------------------------


def test_separated_agents_act_and_live_as_the_team_does():
    report = audit_team(team_of("maddpg", "continuous"), Drift("continuous"))
    assert report.passed and len(report.checks) == 5, str(report)
    assert report.checks[ALONE].found == "equal bit for bit" and "equal bit for bit" in report.checks[EPISODE].found


class Near:
    """The connection to an agent that lives in this process: what is tested with it needs no other."""

    def __init__(self, agent):
        self.agent = agent

    def send(self, message):
        if message is None:  # an episode begins
            return
        self.answer = np.stack([self.agent.select_action(observation) for observation in message[0]])

    def recv(self):
        return self.answer


@pytest.mark.parametrize("kind_of_team", [LeakyTeam, DetachedTeam])
def test_a_team_whose_agents_act_otherwise_when_separated_is_caught(kind_of_team):
    team = kind_of_team(3, 2, 2, {"action_type": "discrete", "seed": 0, "hidden_sizes": [16]})
    shake(team, *team.networks)
    report, env = audit.Report(""), Drift()
    together = audit.play(env, lambda seen, _: team.select_actions(seen, training=False), 0)
    audit.check_separated(report, env, [Near(agent) for agent in team], together, 0)
    assert [check.passed for check in report.checks] == [False, False]
    assert "of the actions differ" in report.checks[0].found


@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_agents_file_holds_its_own_policy_and_no_other_number(algorithm, share):
    team = team_of(algorithm, share=share, num_agents=3)
    acting = "utility" if algorithm == "qmix" else "actor"
    seen = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    assert audit.acting_networks(team, seen, None) == [acting], "found out by spoiling each in turn"
    file = audit.agent_file(team, 1, [acting])
    stack = team.networks[acting].stacks()[0]
    for rows, whole in zip(stack.by_member(file["networks"][acting][0]), stack.by_member(stack.flat), strict=True):
        mine = [0] if share else [1]
        others = [k for k in range(stack.members) if k not in mine]
        assert torch.equal(rows[mine], whole[mine]) and rows[others].isnan().all()
    rest = [vector for name, vectors in file["networks"].items() if name != acting for vector in vectors]
    assert rest and all(vector.isnan().all() for vector in rest), "critics, mixers and targets stay at home"


def test_an_agent_that_cannot_act_alone_is_a_failed_check(monkeypatch):
    class Dead:
        def send(self, _):
            pass

        def recv(self):
            raise EOFError

    report = audit.Report("")
    audit.check_separated(report, Drift(), [Dead(), Dead()], audit.play(Drift(), lambda *_: np.zeros(2, int), 0), 0)
    assert not report.passed and "ended early" in report.checks[0].found


def test_differences_of_rounding_are_told_and_larger_ones_fail():
    one = np.array([0.5, 100.0], np.float32)
    assert audit._compare(one, one.copy(), 1e-6) == (True, "equal bit for bit")
    passed, found = audit._compare(one, one + np.array([0, 1e-5]), 1e-6)
    assert passed and "rounding" in found, "relative to the size of a number"
    passed, found = audit._compare(one, one + np.array([1e-5, 0]), 1e-6)
    assert not passed and "the limit is 1e-06" in found


def test_the_team_is_left_as_it_was():
    team = team_of("mappo")
    before = team.random_state().clone(), [p.clone() for p in moved_by_optimizers(team)]
    audit_team(team, Drift(), separately=False)
    assert torch.equal(before[0], team.random_state())
    assert all(torch.equal(a, b) for a, b in zip(before[1], moved_by_optimizers(team), strict=True))


def test_stacked_environments_are_refused():
    stacked = Drift()
    stacked.num_envs = 2
    with pytest.raises(ValueError, match="expected a single environment, found num_envs=2"):
        audit_team(team_of("mappo"), stacked)


# --- the command ------------------------------------------------------------------------------------------------------


def retail_run(path: Path, *seeds: int, algo: str = "maddpg", problem: str = "retail") -> Path:
    """A run folder with a new team of the right sizes in place of a trained one."""
    path.mkdir(parents=True)
    config = {"problem": problem, "algo": algo, "difficulty": "easy", "data": None}
    (path / "config.json").write_text(json.dumps(config))
    sizes = {"state_dim": 14, "action_dim": 1, "num_agents": 5}
    if problem == "banking":
        sizes = {"state_dim": 19, "action_dim": 3, "num_agents": 3}
    for folder in [path / f"seed{seed}" for seed in seeds] or [path]:
        folder.mkdir(exist_ok=True)
        team = make_team(algo, "continuous" if problem == "retail" else "discrete", **sizes)
        save_checkpoint(RunFolder(folder).checkpoint, {"agents": [team.state_dict()]})
    return path


@pytest.fixture
def quickly(monkeypatch):
    """Without the processes, which are tested above and below."""
    monkeypatch.setattr(audit, "audit_team", partial(audit_team, separately=False))


def test_the_command_audits_every_training_of_a_run(quickly, tmp_path, capsys):
    run = retail_run(tmp_path / "run", 0, 7)
    assert main_script.main(["--audit", str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Every agent acts on its own observation alone.") == 2
    assert "seed0" in printed and "seed7" in printed and "MADDPGTeam, 5 agents, separate parameters" in printed
    (tmp_path / "latest").write_text("run\n")
    assert main_script.main(["--audit", str(tmp_path / "latest")]) == 0


def test_a_failed_check_is_exit_code_1(quickly, monkeypatch, tmp_path, capsys):
    run = retail_run(tmp_path / "run")
    honest = MADDPGTeam.act
    monkeypatch.setattr(MADDPGTeam, "act", lambda self, seen, *rest: honest(self, seen + seen.flip(1), *rest))
    assert main_script.main(["--audit", str(run)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_what_cannot_be_read_is_exit_code_1_and_wrong_usage_2(quickly, tmp_path, capsys):
    run = retail_run(tmp_path / "run")

    def outcome(*arguments):
        code = main_script.main(["--audit", *map(str, arguments)])
        return code, capsys.readouterr().err

    code, message = outcome(tmp_path / "none")
    assert code == 2 and "is no run folder" in message
    with pytest.raises(SystemExit, match="2"):
        outcome(run, "--seed", "-1")
    with pytest.raises(SystemExit, match="2"):
        main_script.main(["--audit", str(run), "--unknown"])
    for name in ("os.path", "subprocess", "../tests"):  # a config.json from a stranger must not choose what is imported
        (run / "config.json").write_text(json.dumps({"problem": name}))
        code, message = outcome(run)
        assert code == 2 and "names the problem" in message
    (run / "config.json").write_text(json.dumps({"problem": "retail", "algo": "other", "difficulty": "easy"}))
    code, message = outcome(run)
    assert code == 1 and "knows maddpg" in message
    (run / "checkpoint.pt").write_bytes(b"nothing")
    code, message = outcome(run)
    assert code == 1 and "no usable checkpoint" in message
    (run / "checkpoint.pt").unlink()
    code, message = outcome(run)
    assert code == 2 and "holds no checkpoint.pt" in message


def test_a_team_that_was_trained_on_another_device_is_audited(quickly, tmp_path):
    """The state of a GPU's generator is 16 bytes and fits no CPU's: it must not keep the team from being loaded."""
    run = retail_run(tmp_path / "run", algo="mappo")
    state = make_team("mappo", "continuous", 14, 1, 5).state_dict()
    save_checkpoint(run / "checkpoint.pt", {"agents": [{**state, "random": torch.arange(16, dtype=torch.uint8)}]})
    assert main_script.main(["--audit", str(run)]) == 0


def test_the_command_as_users_run_it_with_shared_parameters_and_processes(tmp_path):
    run = retail_run(tmp_path / "run", algo="qmix", problem="banking")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", "--audit", str(run)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "QMIXTeam, 3 agents, shared parameters, discrete actions; episode 10000: 600 steps" in done.stdout
    assert done.stdout.count("  pass  ") == 5 and done.stdout.count("equal bit for bit") == 2


def test_a_run_is_found_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    (tmp_path / "retail/results/mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="retail/results/mine is no run folder"):
        saved_teams.trained(Path("mine"))
    with pytest.raises(UsageError, match="'other' is no run folder"):
        saved_teams.trained(Path("other"))
