"""The teams that are shipped open like any run, and do what their summary.csv says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from core.experiment.deployment.saved_teams import open_run
from core.experiment.evaluation import evaluate
from core.experiment.reporting.tables import AFTER

TEAMS = {"retail/teams/maddpg": ("total_cost", 1e-4), "banking/teams/mappo-known": ("latency_ms", 1e-3)}


@pytest.mark.parametrize("name", TEAMS)
def test_a_shipped_team_does_on_unseen_episodes_what_its_summary_says(name):
    metric, close = TEAMS[name]
    run, summary = open_run(name), pd.read_csv(ROOT / name / "summary.csv").set_index("policy")
    settings = importlib.import_module(f"{name.split('/')[0]}.settings")
    episodes = int(summary.loc[AFTER, "episodes"])
    found = evaluate(settings.make_env(min(episodes, 125), "medium", evaluation=True), run.agents, episodes)
    assert found[metric].mean() == pytest.approx(summary.loc[AFTER, metric], rel=close)
    assert found["team_return"].mean() == pytest.approx(summary.loc[AFTER, "team_return"], rel=close)
    assert run.metrics[AFTER][metric][0] == pytest.approx(found[metric].mean(), rel=close)


@pytest.mark.parametrize("name", TEAMS)
def test_a_shipped_team_is_small_and_says_what_made_it(name):
    config = json.loads((ROOT / name / "config.json").read_text(encoding="utf-8"))
    assert config["command"].startswith(f"python {name.split('/')[0]}/train.py") and config["seed"] == 0
    assert (ROOT / name / "checkpoint.pt").stat().st_size < 50_000 * len(config["world"]["agents"])
    assert not any(part in json.dumps(config) for part in ("/tmp", "/home", "/root", str(Path.home())))
