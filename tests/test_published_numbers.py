"""The numbers in the documents are those of the CSVs beside them, written by the scripts that are named there."""

from __future__ import annotations

import argparse
import csv
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, script

from banking.constants import RoutingConstants
from core.experiment.evaluation import evaluate
from core.experiment.training import episode_seeds
from retail.baselines import baselines
from retail.constants import RetailConstants
from retail.environment import MultiWarehouseEnv

RESULTS = ROOT / "docs" / "results"
INTERVAL = re.compile(r"[−-]?\d[\d,]*(?:\.\d+)? ± \d+(?:\.\d+)?")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def between(text: str, mark: str) -> str:
    return text.split(f"<!-- {mark}:begin -->\n")[1].split(f"<!-- {mark}:end -->")[0]


@pytest.mark.parametrize(("name", "mark"), [("docs/BENCHMARKS.md", "comparison"), ("README.md", "results")])
def test_the_comparison_tables_are_those_of_the_csv(name, mark):
    comparison = script("comparison")
    assert between(page("docs/BENCHMARKS.md"), "control") == comparison.control_table()
    only = comparison.FRONT_PAGE if mark == "results" else None
    assert between(page(name), mark) == comparison.tables(only)


def test_the_table_of_games_is_that_of_the_csv():
    table = script("games_table").markdown(pd.read_csv(RESULTS / "games.csv"))
    rows = [line for line in table.splitlines() if line.startswith(("| climbing", "| penalty"))]
    assert len(rows) == 6 and all(row in page("docs/BENCHMARKS.md") for row in rows)


def test_the_table_of_public_tasks_is_that_of_the_csv():
    table = script("public_tasks").table(pd.read_csv(RESULTS / "public_tasks.csv"))
    assert len(table.splitlines()) > 14 and table in page("docs/BENCHMARKS.md")


def test_the_table_of_many_agents_is_that_of_the_csv():
    assert between(page("docs/BENCHMARKS.md"), "many_agents") == script("many_agents").table(
        pd.read_csv(RESULTS / "many_agents.csv")
    )


def test_many_agents_share_as_much_each_as_those_of_the_preset():
    many = script("many_agents")
    retail, banking = many.constants("retail", 10), many.constants("banking", 60)
    assert retail["mean_demand"] == 2 * RetailConstants().mean_demand
    assert retail["supplier_capacity"] == pytest.approx(2 * RetailConstants().supplier_capacity)
    assert banking["arrival_rates"] == 20 * RoutingConstants().arrival_rates
    assert banking["channel_rates"] == pytest.approx([20 * rate for rate in RoutingConstants().channel_rates])


def test_the_table_of_what_is_attainable_is_that_of_the_csv():
    table = script("attainable").markdown(pd.read_csv(RESULTS / "attainable.csv"))
    assert len(table.splitlines()) == 4
    assert table in page("docs/BENCHMARKS.md")


def test_the_rule_beside_the_learning_curves_met_the_same_training_episodes():
    comparison, rule = script("comparison"), pd.read_csv(RESULTS / "curves_rule.csv")
    assert list(rule.groupby("problem")["training_seed"].unique().map(sorted)) == 2 * [[10, 11, 12, 13, 14]]
    first = rule[(rule["problem"] == "retail") & (rule["training_seed"] == 12)].set_index(["shared", "until"])["value"]
    policy = baselines("medium")[comparison.TO_BEAT["retail"]]
    seeds = np.array(episode_seeds(12, 0, 25))
    for shared in (1, 2):
        met = [evaluate(MultiWarehouseEnv(), policy, 1, int(seeds[k - k % shared])) for k in range(25)]
        assert first[shared, 25] == pytest.approx(np.mean([table["total_cost"][0] for table in met]), abs=1e-3)
    assert set(comparison.distances("banking", "mappo-known").columns) == {10, 11, 12, 13, 14}


def test_the_learning_curves_are_of_five_trainings_each():
    curves = pd.read_csv(RESULTS / "curves.csv")
    medium = curves[(curves["difficulty"] == "medium") & curves["policy"].isin(["maddpg", "mappo", "qmix"])]
    medium = medium[medium["training_seed"].isin(script("comparison").SEEDS["medium"])]
    counted = medium.groupby(["problem", "policy", "training_seed"]).size()
    assert len(counted) == 2 * 3 * 5 and set(counted) == {40}


def test_the_bounds_are_those_of_the_csv():
    text = page("docs/BENCHMARKS.md").replace("−", "-")
    table = pd.concat([pd.read_csv(ROOT / problem / "bounds.csv") for problem in ("retail", "banking")])
    bounds = table[table["name"] == "clairvoyant bound"]
    assert len(bounds) == 6
    for _, row in bounds.iterrows():
        number = "{:.1f} ± {:.1f}" if row["problem"] == "retail" else "{:.0f} ± {:.0f}"
        assert number.format(row["mean"], row["half_width"]) in text


@pytest.mark.parametrize(
    ("problem", "metric", "number"),
    [
        ("retail", "total_cost", "{:.1f} ± {:.1f}"),
        ("banking", "latency_ms", "{:.1f} ± {:.1f}"),
        ("banking", "team_return", "{:.0f} ± {:.0f}"),
    ],
)
def test_the_what_if_tables_are_those_of_the_csv(problem, metric, number):
    rows = [line for line in page("docs/BENCHMARKS.md").splitlines() if line.startswith("| ")]
    for _, row in pd.read_csv(RESULTS / f"what_if_{problem}.csv").iterrows():
        cell = number.format(row[metric], row[f"{metric}_ci95"])
        assert any(line.startswith(f"| {row['scenario']} |") and f"| {cell} " in line for line in rows)


def test_the_tables_of_speed_are_those_of_the_csv():
    with open(RESULTS / "speed.csv", encoding="utf-8") as file:
        assert (
            between(page("docs/BENCHMARKS.md"), "speed").strip()
            == script("speed").tables(list(csv.DictReader(file))).strip()
        )


def test_the_smallest_row_of_the_speed_suite_runs(capsys):
    speed = script("speed")
    rows = speed.compared("maddpg update", speed.updates("maddpg", 8, 2), 5, {"agents": 2, "batch": 8})
    assert [row["who"] for row in rows[:2]] == ["ours", "products alone"]
    assert rows[0]["ratio"] == 1.0 and all(row["fastest"] > 0 for row in rows)
    left_out, there = capsys.readouterr().out, {row["who"] for row in rows}
    assert all(name in there or f"{name} is left out" in left_out for name in speed.peers.MAKERS)


def test_the_loops_of_the_speed_suite_are_timed_a_step_of_one_copy():
    timed = script("speed").loops("mappo", 250, 2, rounds=1)
    assert 0 < timed["ours"]() < 1.0


def test_the_table_of_processes_is_that_of_the_csv():
    with open(RESULTS / "processes.csv", encoding="utf-8") as file:
        assert between(page("docs/BENCHMARKS.md"), "processes") == script("processes").table(list(csv.DictReader(file)))


def test_the_scaling_table_is_that_of_the_csv():
    with open(ROOT / "docs" / "images" / "scaling.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = between(page("docs/BENCHMARKS.md"), "scaling")
    for algorithm in ("maddpg", "mappo", "qmix"):
        mine = [f"{float(row['median_ms']):.1f}" for row in rows if row["algorithm"] == algorithm]
        assert f"| {algorithm.upper()} | " + " | ".join(mine) + " |" in shown


@pytest.mark.parametrize("name", ["README.md", "docs/BENCHMARKS.md", "docs/MARL_THEORY.md"])
def test_an_interval_in_a_sentence_stands_in_a_table_too(name):
    lines = page(name).replace("−", "-").splitlines()
    tables = "\n".join(line for line in lines if line.startswith("|"))
    tables += "" if name == "docs/BENCHMARKS.md" else page("docs/BENCHMARKS.md").replace("−", "-")
    sentences = "\n".join(line for line in lines if not line.startswith("|"))
    strangers = [found for found in INTERVAL.findall(sentences) if found not in tables]
    assert not strangers, f"{name} quotes {strangers}, which no table holds"


def test_the_front_picture_shows_the_numbers_of_the_comparison():
    table = script("comparison").counted()
    medium = table[table["difficulty"] == "medium"]
    shown = pd.read_csv(ROOT / "docs" / "images" / "before_after.csv").set_index(["problem", "metric", "policy"])[
        "mean"
    ]
    for problem, policy in (("retail", "maddpg"), ("banking", "mappo")):
        metric = {"retail": "total_cost", "banking": "latency_ms"}[problem]
        mine = medium[(medium["problem"] == problem) & (medium["policy"] == policy)]
        assert len(mine) == 5, "five training seeds"
        assert shown[problem, metric, policy.upper()] == pytest.approx(mine[metric].mean(), rel=1e-5)


def test_a_comparison_begins_without_a_table_and_stops_where_a_training_fails(monkeypatch, tmp_path):
    comparison = script("comparison")
    monkeypatch.setattr(comparison, "RESULTS", tmp_path / "results")
    options = {"difficulties": ["easy"], "problems": ["retail"], "algorithms": ["nothing"], "seeds": [0]}
    with pytest.raises(SystemExit, match="retail-easy-nothing-0 failed"):
        comparison.run_all(argparse.Namespace(**options, control=False, episodes=2, jobs=1))
    assert len(comparison.read()) == 8, "the rules were finished, and are kept"


def test_the_optimum_table_is_that_of_the_csv():
    table = script("optimum").table(pd.read_csv(RESULTS / "optimum.csv"))
    assert len(table.splitlines()) == 12 and table in page("docs/BENCHMARKS.md")


def test_the_optimum_table_goes_on_with_what_is_missing(monkeypatch, tmp_path):
    optimum, trained = script("optimum"), []

    def one(name, algorithm, kind, seed):
        trained.append((algorithm, kind, seed))
        return {"problem": name, "policy": algorithm, "actions": kind, "seed": seed, "cost": 5.0, "seconds": 1.0}

    monkeypatch.setattr(optimum, "trained", one)
    monkeypatch.setattr(optimum, "references", lambda name: [{"problem": name, "policy": "optimum", "cost": 4.0}])
    wanted = {"problems": ["one warehouse"], "algorithms": ["maddpg", "qmix"], "out": tmp_path / "optimum.csv"}
    optimum.run(argparse.Namespace(**wanted, seeds=[0], missing=False))
    optimum.run(argparse.Namespace(**wanted, seeds=[0, 1], missing=True))
    once = [("maddpg", "discrete"), ("maddpg", "continuous"), ("qmix", "discrete")]
    assert trained == [(*cell, 0) for cell in once] + [(*cell, 1) for cell in once]
    table = optimum.table(pd.read_csv(tmp_path / "optimum.csv"))
    assert "| optimum | $4.000 a period |" in table and "| maddpg, discrete | 25.0 ± 0.0 |" in table


def test_the_table_of_coverage_is_that_of_the_csv_and_near_95():
    rows = pd.read_csv(RESULTS / "coverage.csv")
    assert script("coverage").table(rows) in page("docs/BENCHMARKS.md")
    assert (rows["count"] == 1000).all()
    assert rows.groupby("series")["windows"].mean().between(93.0, 97.0).all()
    error = 100.0 * (0.95 * 0.05 / 1000) ** 0.5  # of one share of 1000: a row may be that far below by luck
    assert rows["windows"].between(93.0 - error, 97.0 + error).all()
