"""A run is opened in one call: named inputs in the user's units go in, decisions in units come out."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from banking.environment import TransactionRoutingEnv
from core.experiment.deployment.saved_teams import open_run
from core.experiment.evaluation import evaluate
from core.experiment.runs import folders
from core.maddpg import MADDPGTeam
from retail.environment import MultiWarehouseEnv

pytestmark = pytest.mark.filterwarnings("ignore:.*the training saw")  # one value for all is odd for some
PROBLEMS = ("retail", "banking")
WORLDS = [
    *(MultiWarehouseEnv("hard", 3), MultiWarehouseEnv(lead_times=(1, 2, 3, 1, 1)), MultiWarehouseEnv(lead_times=1)),
    *(TransactionRoutingEnv(3, "hard"), TransactionRoutingEnv(scenario="outage", episode_steps=300)),
]


@pytest.fixture(scope="module", params=PROBLEMS)
def run(request, runs):
    return open_run(runs[request.param])


def typical(run, agent: int = 0) -> dict[str, float]:
    """Inputs that the training saw often."""
    shown = run.units.decode(run.typical[agent])
    return {name: max(float(shown[name]), named.range[0]) for name, named in run.observations.items()}


def played(env, seed: int = 5):
    """(named inputs, observations) of every step of an episode in which everybody acts at random."""
    draw, observations, over = np.random.default_rng(seed), env.reset(seed), False
    while not over:
        yield env.named_inputs(), observations
        shape = observations.shape[:-1]
        actions = draw.integers(0, 3, shape) if env.discrete_actions else draw.random((*shape, 1))
        observations, _, dones, _ = env.step(actions)
        over = dones.all()


# --- inputs and observations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", WORLDS, ids=lambda env: f"{type(env).__name__} {env.difficulty} {env.num_envs}")
def test_the_named_inputs_of_an_environment_encode_to_its_observations_exactly(env):
    module = importlib.import_module(type(env).__module__.replace("environment", "observations"))
    units = module.Units.of(env.world())
    for inputs, observations in played(env):
        assert list(inputs) == list(units.observations)
        assert np.array_equal(units.encode(inputs), observations)
        own = {name: float(values.reshape(-1)[1]) for name, values in inputs.items()}  # agent 1 of the first copy
        assert np.array_equal(units.encode(own, agent=1), observations.reshape(-1, observations.shape[-1])[1])


@pytest.mark.parametrize("env", WORLDS[:2], ids=["retail", "long lead times"])
def test_units_are_read_back_from_observations(env):
    from retail.observations import Units

    units = Units.of(env.world())
    for inputs, observations in played(env):
        shown = units.decode(observations)
        for name, values in inputs.items():
            np.testing.assert_allclose(shown[name], values, atol=1e-5, err_msg=name)


def test_routers_read_back_what_is_within_the_limits_of_their_observation():
    from banking.observations import MAX_AGE_MS, PENDING_LIMIT, Units

    env = TransactionRoutingEnv(3)
    units = Units.of(env.world())
    for inputs, observations in played(env):
        shown, waiting = units.decode(observations), inputs["pending"] > 0
        np.testing.assert_allclose(shown["pending"], np.minimum(inputs["pending"], PENDING_LIMIT), atol=1e-5)
        np.testing.assert_allclose(shown["amount"][waiting], inputs["amount"][waiting], rtol=1e-5)
        age = np.minimum(inputs["head age"], MAX_AGE_MS)
        np.testing.assert_allclose(shown["head age"][waiting], age[waiting], atol=1e-3)
        np.testing.assert_allclose(shown["arrival rate"], inputs["arrival rate"], rtol=1e-5)
        np.testing.assert_allclose(shown["hour"], inputs["hour"], atol=1e-4)


def test_times_of_a_recorded_log_are_in_its_own_clock():
    """Where a simulated second is 60 of the log, 6 s of the log are 100 ms of the simulation."""
    from banking.observations import Units

    world = TransactionRoutingEnv().world()
    simulated, logged = Units.of(world), Units.of({**world, "log_speed": 60.0})
    inputs = {name: named.range[0] for name, named in simulated.observations.items()} | {"amount": 50.0}
    slow = inputs | {"head age": 6000.0, "external wait": 12_000.0, "arrival rate": 2.0}
    fast = inputs | {"head age": 100.0, "external wait": 200.0, "arrival rate": 120.0}
    assert np.array_equal(logged.encode(slow, 0), simulated.encode(fast, 0))
    assert float(logged.decode(logged.encode(slow, 0))["head age"]) == pytest.approx(6000.0)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_input_has_a_unit_a_range_and_a_meaning(name):
    module = importlib.import_module(f"{name}.observations")
    assert len(module.OBSERVATIONS) == {"retail": 11, "banking": 16}[name]
    for input_name, (unit, (low, high), meaning) in module.OBSERVATIONS.items():
        assert unit and meaning and low < high, input_name


# --- a run is opened --------------------------------------------------------------------------------------------------


def test_a_run_tells_its_team_names_constants_and_metrics(run):
    assert [len(run.agents), len(run.names)] == [run.agents.num_agents] * 2
    assert run.names[0] in ("warehouse 1", "router 1")
    assert run.world["constants"].keys() >= set(run.units.SCALES) - {"log_speed"}
    mean, half = run.metrics["after training"]["team_return"]
    assert mean < 0.0 < half
    assert (run.low <= run.typical).all() and (run.typical <= run.high).all()


def test_the_opened_team_is_the_trained_one(runs):
    """Greedy on the episodes on which the run judged it, it earns what the run's own table says."""
    run = open_run(runs["retail"])
    table = evaluate(MultiWarehouseEnv(num_envs=3), run.agents, 3)
    assert table["team_return"].mean() == pytest.approx(run.metrics["after training"]["team_return"][0])


def test_decisions_are_those_of_the_agents_in_units(run):
    inputs = typical(run)
    decisions = run.decide(inputs)
    assert list(decisions) == list(run.names)
    for i, name in enumerate(run.names):
        action = run.agents[i].select_action(run.encode(inputs, i))
        assert decisions[name] == run.units.decision(action, i)
        assert run.decide(inputs, agent=i) == run.decide(inputs, agent=name) == {name: decisions[name]}
    if run.config["problem"] == "retail":
        limit = run.world["constants"]["order_limit"]
        assert all(0.0 < order < limit for order in decisions.values())
        assert all(order == round(order) for order in run.decide(inputs, whole_units=True).values())
    else:
        assert set(decisions.values()) <= {"internal", "external", "blockchain"}


def test_each_agent_can_have_inputs_of_its_own(run):
    first = next(iter(run.observations))
    values = 1.0 + np.arange(len(run.names))
    together = run.decide({**typical(run), first: values})
    for i, name in enumerate(run.names):
        assert together[name] == run.decide({**typical(run), first: values[i]}, agent=i)[name]
    with pytest.raises(ValueError, match=f"{first} has the shape"):
        run.decide({**typical(run), first: [1.0, 2.0]})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -3.0, "much", None, ""])
def test_what_cannot_be_an_input_is_refused_by_name(run, bad):
    for name in run.observations:
        with pytest.raises(ValueError, match=f"^{name} is .*"):
            run.decide({**typical(run), name: bad})


def test_missing_and_unknown_inputs_are_refused_by_name(run):
    first, *others = run.observations
    with pytest.raises(ValueError, match=f"{first} is missing"):
        run.decide({name: value for name, value in typical(run).items() if name != first})
    with pytest.raises(ValueError, match=f"is no input; did you mean {others[0]!r}"):
        run.decide({**typical(run), others[0] + "s": 1.0})
    with pytest.raises(ValueError, match="'nobody' is no agent of this run"):
        run.decide(typical(run), agent="nobody")


def test_an_input_that_can_only_be_nothing_may_be_left_out(runs):
    run = open_run(runs["retail"])
    short = {name: value for name, value in typical(run).items() if name != "arriving later"}
    assert run.decide(short) == run.decide({**short, "arriving later": 0.0})


def test_what_the_training_never_saw_is_warned_of_by_name(runs):
    run = open_run(runs["retail"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.decide(typical(run), agent=0)  # nothing to say
    with pytest.warns(UserWarning, match=r"warehouse 1: on hand is 40, the training saw 0\S* to \d"):
        run.decide({**typical(run), "on hand": 40.0}, agent=0)


def test_a_run_needs_no_file_of_the_user(runs, tmp_path):
    """What scales its inputs is in its folder: a run that learnt from data opens where the data are gone."""
    shutil.copytree(runs["retail"], tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"data": "/gone/sales.csv"}))
    assert open_run(tmp_path / "run").decide(typical(open_run(runs["retail"]))).keys() == set(config["world"]["agents"])


# --- names of runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path, monkeypatch, runs) -> Path:
    """A repository with both runs in it, each under its own name and under one that both have."""
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    for problem, run in runs.items():
        for name in (run.name, "same"):
            shutil.copytree(run, tmp_path / problem / "results" / name)
        (tmp_path / problem / "results/latest").write_text(run.name + "\n")
    shutil.copytree(runs["retail"], tmp_path / "retail/teams/shipped")
    return tmp_path


def test_a_run_has_many_names(house, runs, monkeypatch):
    own = runs["retail"].name
    inside = house / "retail/results" / own
    for name in (inside, own, f"retail/{own}", "retail/latest", "retail/results/latest", f"retail/results/{own}"):
        assert open_run(name).path == inside
    assert open_run("latest", problem="retail").path == inside
    assert folders.RunFolder.find(house / "retail/results", "retail/latest").path == inside, "as --resume finds it"
    assert open_run("shipped").path == open_run("retail/shipped").path == house / "retail/teams/shipped"
    monkeypatch.chdir(house / "retail")
    assert open_run("results/latest").path.resolve() == inside


def test_a_name_that_both_problems_have_is_refused(house):
    for name in ("same", "latest"):
        with pytest.raises(ValueError, match=f"'{name}' is the name of 2 runs; say banking/{name} or retail/{name}"):
            open_run(name)
    with pytest.raises(ValueError, match="'other' is no run folder"):
        open_run("other")
    with pytest.raises(ValueError, match="is a run of banking, not of retail"):
        open_run(house / "banking/results/same", problem="retail")


def test_one_training_of_several_seeds_is_named_by_its_folder(runs, tmp_path):
    for seed in (0, 1):
        (tmp_path / f"run/seed{seed}").mkdir(parents=True)
        shutil.copy(runs["retail"] / "checkpoint.pt", tmp_path / f"run/seed{seed}")
    shutil.copy(runs["retail"] / "config.json", tmp_path / "run")
    assert open_run(tmp_path / "run").path.name == "seed0"
    assert open_run(tmp_path / "run/seed1").path.name == "seed1"


def test_load_says_how_a_runs_own_checkpoint_is_opened(runs):
    with pytest.raises(ValueError, match=r"checkpoint of a run, .* open_run\(folder\)"):
        MADDPGTeam.load(runs["retail"] / "checkpoint.pt")


def test_a_team_of_another_world_is_refused(runs, tmp_path):
    shutil.copytree(runs["retail"], tmp_path / "run")
    saved = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    team = MADDPGTeam(14, 1, 4, {"seed": 0})
    torch.save({**saved, "agents": [team.state_dict()], "seen": None}, tmp_path / "run/checkpoint.pt")
    with pytest.raises(ValueError, match="is none of the world"):
        open_run(tmp_path / "run")


# --- the rule beside a decision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS)
def test_on_the_users_data_the_rule_beside_is_the_best_that_the_run_tuned(problem, runs, tmp_path):
    """Read back from rules.json, it acts as the rule that was written there, to the digits that stand there."""
    shutil.copytree(runs[problem], tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(config | {"data": "/gone/data.csv"}))
    run = open_run(tmp_path / "run")
    env = run.settings.make_env(**run.world["constants"])
    tuned, seen = run.settings.rules(env), env.reset(7)
    for best in {"retail": ["(s, S), tuned jointly"], "banking": ["size threshold", "local index"]}[problem]:
        run.metrics[best]["team_return"] = (0.0, 0.0)  # above all others
        name, rule = open_run_rule(run)
        assert name == best
        wanted = run.units.decision(tuned[best](seen))
        found = [run.units.decision(rule(own, i), i) for i, own in enumerate(seen)]
        assert found == list(wanted) if problem == "banking" else np.allclose(found, wanted, atol=1e-3)
        run.metrics[best]["team_return"] = (-1e9, 0.0)
    (tmp_path / "run/rules.json").unlink()
    name, rule = open_run(tmp_path / "run").rule
    assert name == run.words.FALLBACK
    assert np.array_equal(rule(seen[0], 0), run.units.fallback(run.units.decode(seen[0]), 0))


def open_run_rule(run):
    """`run.rule`, asked anew."""
    run.__dict__.pop("rule", None)
    return run.rule
