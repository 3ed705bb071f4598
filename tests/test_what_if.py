"""The what-if study: everybody meets the same disturbed episodes, and "none" is the plain evaluation."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from teams import make_team

import banking.train
import main as main_script
import retail.train
from banking.environment import TransactionRoutingEnv
from banking.scenarios import scenarios as banking_scenarios
from core.experiment.deployment import what_if
from core.experiment.deployment.what_if import Mixed, Scenario
from core.experiment.evaluation import evaluate, half_width
from core.experiment.runs.checkpoint import save_checkpoint
from retail.environment import MultiWarehouseEnv
from retail.scenarios import RULES, SHOWN, more_rules
from retail.scenarios import scenarios as retail_scenarios

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"retail": ("continuous", 14, 1, 5), "banking": ("discrete", 19, 3, 3)}  # kind, observation, action, agents


def run_folder(path: Path, *seeds: int, problem: str = "retail", algo: str = "maddpg", **config) -> Path:
    """A run folder with new teams of the right sizes in place of trained ones."""
    path.mkdir()
    config = {"problem": problem, "algo": algo, "difficulty": "easy", "data": None, "seed": 0, **config}
    (path / "config.json").write_text(json.dumps(config))
    for seed, folder in [(seed, path / f"seed{seed}") for seed in seeds] or [(0, path)]:
        folder.mkdir(exist_ok=True)
        team = make_team(algo, *SIZES[problem], seed=seed)
        save_checkpoint(folder / "checkpoint.pt", {"agents": [team.state_dict()]})
    return path


def rows_of(path: Path, *index: str) -> pd.DataFrame:
    """A table of numbers, to the last bit, by the columns of names."""
    return pd.read_csv(path, dtype=str).set_index(list(index)).map(float)


# --- the study --------------------------------------------------------------------------------------------------------


def test_undisturbed_is_the_evaluation_of_the_training_run_to_the_last_bit(tmp_path, capsys):
    flags = "--episodes 2 --num-envs 2 --eval-episodes 6 --eval-every 0 --difficulty hard --no-plots --quiet"
    assert retail.train.main([*flags.split(), "--out", str(tmp_path)]) == 0
    assert main_script.main(["--what-if", str(tmp_path / "latest"), "--episodes", "6"]) == 0
    folder = tmp_path / (tmp_path / "latest").read_text().strip()
    found = rows_of(folder / "what_if.csv", "scenario", "policy")
    summary, evaluation = rows_of(folder / "summary.csv", "policy"), rows_of(folder / "evaluation.csv", "policy")
    for policy, name in (("maddpg", "after training"), *((rule, rule) for rule in RULES[:2])):
        for metric in SHOWN:
            assert found.loc[("none", policy), metric] == summary.loc[name, metric]
            assert found.loc[("none", policy), f"{metric}_ci95"] == summary.loc[name, f"{metric}_ci95"]
        own = evaluation.loc[name]
        assert found.loc[("none", policy), "total_cost"] == own["total_cost"].mean()
        pooled = own["stockout_cost"].sum() / 10 / own["demand"].sum()
        assert found.loc[("none", policy), "stockout_percent"] == pytest.approx(100 * pooled), "of all demand together"
    printed = capsys.readouterr().out
    assert "retail, hard, 6 unseen episodes" in printed, "the difficulty is that of the run"
    assert f"| scenario | maddpg | {' | '.join(RULES)} |" in printed
    assert printed.count("| longer lead times |") == len(SHOWN)
    png = (folder / "what_if.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20], "big") >= 1000, "a picture, 1000 pixels wide"


def test_the_rule_that_is_told_of_lead_times_is_the_tuned_one_until_they_change():
    tuned, told = RULES[1:]
    plain, longer = MultiWarehouseEnv(num_envs=2), MultiWarehouseEnv(num_envs=2, lead_times=(2, 2, 2, 3, 3))
    seen = plain.reset(0)
    rules = [retail.settings.rules(env)[tuned] for env in (plain, longer)]
    informed = [more_rules(env)[told] for env in (plain, longer)]
    np.testing.assert_allclose(informed[0](seen), rules[0](seen))
    seen = longer.reset(0)
    assert (informed[1](seen) >= rules[1](seen)).all() and informed[1](seen).sum() > 1.2 * rules[1](seen).sum()


def test_changes_are_paired_with_the_same_policy_on_the_same_episodes(tmp_path):
    folder, out = run_folder(tmp_path / "run"), tmp_path / "tables"
    assert main_script.main(["--what-if", str(folder), "--episodes", "5", "--out", str(out)]) == 0
    found, rule = rows_of(out / "what_if.csv", "scenario", "policy"), RULES[1]
    plain = MultiWarehouseEnv("easy", num_envs=5)
    surge = MultiWarehouseEnv("easy", num_envs=5, **retail_scenarios(plain)["demand surge"].options)
    before, after = (evaluate(env, retail.settings.rules(env)[rule], 5)["total_cost"] for env in (plain, surge))
    row = found.loc[("demand surge", rule)]
    assert row["total_cost"] == after.mean() and row["total_cost_change"] == pytest.approx((after - before).mean())
    assert row["total_cost_change_ci95"] == pytest.approx(half_width(after - before))
    assert not (folder / "what_if.csv").exists()


def test_over_several_trainings_the_seed_is_the_unit(tmp_path):
    folder = run_folder(tmp_path / "run", 0, 7)
    study, of = what_if._open(folder, 4)
    assert of == folder and list(study.teams) == [0, 7]
    table, env = study.run().set_index(["scenario", "policy"]), MultiWarehouseEnv("easy", num_envs=4)
    means = [evaluate(env, team, 4)["total_cost"].mean() for team in study.teams.values()]
    row = table.loc[("none", "maddpg")]
    assert means[0] != means[1]
    assert (row["training_seeds"], row["episodes"]) == (2, 4)
    assert row["total_cost"] == pytest.approx(np.mean(means))
    assert row["total_cost_ci95"] == pytest.approx(half_width(means))


class Witness(MultiWarehouseEnv):
    """Tells what every episode was made of."""

    seen: list = []

    def reset(self, seed=None):
        observations = super().reset(seed)
        episode = self.episode()
        Witness.seen.append((tuple(seed), episode.demand, episode.supply, tuple(self.constants.lead_times)))
        return observations


@pytest.mark.parametrize(
    ("name", "demand", "supply", "lead_times"),
    [
        ("demand surge", 1.5, 1.0, (1, 1, 1, 2, 2)),
        ("supplier cut", 1.0, 0.5, (1, 1, 1, 2, 2)),
        ("longer lead times", 1.0, 1.0, (2, 2, 2, 3, 3)),
        ("one by base-stock", 1.0, 1.0, (1, 1, 1, 2, 2)),
    ],
)
def test_a_disturbance_meets_every_policy_on_the_same_episodes(tmp_path, name, demand, supply, lead_times):
    def make_env(num_envs=None, difficulty="medium", evaluation=False, **options):
        assert evaluation
        return Witness(difficulty, num_envs, **options)

    study, _ = what_if._open(run_folder(tmp_path / "run"), 3)
    study = dataclasses.replace(study, settings=SimpleNamespace(make_env=make_env, rules=study.settings.rules))
    Witness.seen = []
    study.evaluate(study.scenarios[name])
    plain = MultiWarehouseEnv("easy", num_envs=3)
    plain.reset(10_000)
    factors = np.ones(30)
    factors[10:20] = demand
    rations = np.full(30, 2.5)
    rations[10:20] *= supply
    assert len(Witness.seen) == 4, "the team and the three rules"
    for seeds, met, supplied, leads in Witness.seen:
        assert seeds == (10_000, 10_001, 10_002)
        np.testing.assert_allclose(met, plain.episode().demand * factors[:, None], rtol=1e-12)
        np.testing.assert_array_equal(supplied, rations)
        assert leads == lead_times


def test_scenarios_follow_the_constants_of_the_environment():
    """Lead times grow from those of the environment, and windows from its horizon."""
    env = MultiWarehouseEnv(horizon=12, lead_times=(2, 1, 1, 1, 3))
    found = retail_scenarios(env)
    assert found["longer lead times"].options == {"lead_times": (3, 2, 2, 2, 4)}
    cut = found["supplier cut"].options["supplier_multiplier"]
    np.testing.assert_array_equal(np.flatnonzero(cut < 1), [4, 5, 6, 7])
    assert "periods 4 to 7" in found["supplier cut"].meaning


# --- one agent by a rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [False, True])
def test_exactly_one_warehouse_follows_the_rule(stacked):
    env = MultiWarehouseEnv("easy", num_envs=3 if stacked else None)
    team, rule = make_team("maddpg", *SIZES["retail"]), retail.settings.rules(env)[RULES[0]]
    observations = env.reset(10_000)
    whole, orders = team.select_actions(observations, training=False), rule(observations)
    mixed = Mixed(team, rule, 2)(observations)
    assert np.all(whole != orders), "so that one is told from the other"
    np.testing.assert_array_equal(mixed[..., 2, :], orders[..., 2, :].astype(np.float32))
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(mixed[..., others, :], whole[..., others, :])


def test_exactly_one_router_follows_the_rule_and_rules_see_the_environment():
    env = TransactionRoutingEnv(4, "easy")
    observations = env.reset(10_000)
    always = [np.full((4, 3), channel) for channel in range(3)]
    mixed = Mixed(lambda seen: always[0], lambda seen: always[2], 1)(observations)
    np.testing.assert_array_equal(mixed, np.tile([0, 2, 0], (4, 1)))
    centralized = Mixed(banking.settings.rules(env)["global index"], lambda seen: always[2], 1)
    centralized.begin_episode(env)
    assert np.all(centralized(observations)[:, 1] == 2)


def test_whoever_follows_the_rule_already_stays_as_it_was(tmp_path):
    study, _ = what_if._open(run_folder(tmp_path / "run", problem="banking", algo="mappo"), 2)
    rule = "join shortest queue, own"  # it draws lots at ties: the same ones again
    study = dataclasses.replace(study, rules=[rule], teams={})
    alone, replaced = (study.evaluate(study.scenarios[name]) for name in ("none", "one by shortest queue"))
    pd.testing.assert_frame_equal(alone, replaced)


# --- the scenarios of banking -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disturbed():
    """Name -> an environment of banking's scenario, at the start of the episode 10,000; "none" is the plain one."""
    plain = TransactionRoutingEnv(2, "hard")
    found = {"none": Scenario("none"), **banking_scenarios(plain)}
    envs = {name: TransactionRoutingEnv(2, "hard", **scenario.options) for name, scenario in found.items()}
    for env in envs.values():
        env.reset(10_000)
    return envs


def test_the_fastest_channel_is_out_for_one_second(disturbed):
    capacity = disturbed["channel outage"].episodes.capacity  # (T, E, C), steps of 10 ms
    assert np.all(capacity[200:300, :, 0] == 0.0)
    assert np.all(np.delete(capacity[:, :, 0], range(200, 300), axis=0) > 0) and np.all(capacity[..., 1:] > 0)
    np.testing.assert_array_equal(
        disturbed["channel outage"].episodes.transactions, disturbed["none"].episodes.transactions
    )


def test_a_surge_is_half_as_many_transactions_more_for_one_second():
    surge = banking_scenarios(TransactionRoutingEnv())["arrival surge"].options
    many = [TransactionRoutingEnv(40, **options) for options in (surge, {})]
    for env in many:
        env.reset(10_000)
    inside, outside = (
        np.divide(*(env.episodes.counts[window].sum() for env in many))
        for window in (slice(200, 300), np.r_[:200, 300:600])
    )
    assert inside == pytest.approx(1.5, abs=0.1) and outside == pytest.approx(1.0, abs=0.05)


def test_acknowledgements_come_half_a_second_late(disturbed):
    on_time, late = disturbed["none"], disturbed["stale acknowledgements"]
    known = []
    for env in (on_time, late):
        env.reset(10_000)
        history = [env.in_flight.sum()]
        for _ in range(120):
            env.step(np.zeros((2, 3), int))
            history.append(env.in_flight.sum())
        known.append(np.array(history))
    assert late.ack_delay_steps == 50
    sent = known[1][:50]  # nothing can be known of anything yet
    assert np.all(np.diff(sent) >= 0) and known[0][49] < sent[-1]


def test_only_who_needs_acknowledgements_suffers_from_late_ones(tmp_path):
    study, _ = what_if._open(run_folder(tmp_path / "run", problem="banking", algo="mappo"), 2)
    chosen = {name: study.scenarios[name] for name in ("none", "stale acknowledgements")}
    rules = ["local index", "global index"]
    table = dataclasses.replace(study, scenarios=chosen, rules=rules).run().set_index(["scenario", "policy"])
    changes = table.loc["stale acknowledgements", "latency_ms_change"]
    assert list(changes.index) == ["mappo", *rules] and changes["global index"] == 0.0 and changes["local index"] > 0.0
    assert (
        "internal, the fastest channel, does no work for 1 s from 2 s on" in study.scenarios["channel outage"].meaning
    )


# --- the command ------------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, capsys):
    run = run_folder(tmp_path / "run")

    def outcome(*arguments):
        code = main_script.main(["--what-if", *map(str, arguments)])
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and message.startswith("main.py: ")
        return code, message

    code, message = outcome(tmp_path)
    assert code == 2 and "is no run folder" in message
    for number in ("1", "0", "-3", "900001"):
        code, message = outcome(run, "--episodes", number)
        assert code == 2 and f"--episodes {number}: give a whole number from 2" in message
    for arguments in (["--episodes", "many"], ["--unknown"], []):
        with pytest.raises(SystemExit, match="2"):
            main_script.main(["--what-if", str(run), *arguments] if arguments else [])
        capsys.readouterr()
    code, message = outcome(run, "--episodes", "2", "--out", run / "config.json")
    assert code == 1 and "cannot write results" in message
    code, message = outcome(run_folder(tmp_path / "own", data="sales.csv"))
    assert code == 2 and "your own data" in message
    code, message = outcome(run_folder(tmp_path / "harder", difficulty="impossible"))
    assert code == 1 and "'impossible'" in message
    (run / "config.json").write_text(json.dumps({"problem": "retail", "algo": "other", "difficulty": "easy"}))
    code, message = outcome(run)
    assert code == 1 and "knows maddpg" in message
    (run / "checkpoint.pt").unlink()
    code, message = outcome(run)
    assert code == 2 and "holds no checkpoint.pt" in message
    assert not list(tmp_path.rglob("what_if.*"))


def test_the_command_as_users_run_it(tmp_path):
    run = run_folder(tmp_path / "run", algo="qmix")
    command = [sys.executable, "main.py", "--what-if", str(run), "--episodes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- supplier cut: the supplier ships half in periods 10 to 19" in done.stdout
    found = rows_of(run / "what_if.csv", "scenario", "policy")
    assert len(found) == 5 * 4 and found.notna().all(axis=None)
    assert (run / "what_if.png").is_file()
