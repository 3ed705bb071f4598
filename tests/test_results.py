"""Run folders, tables and pictures: what is written, and that half a file never is."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import numpy as np
import pandas as pd
import pytest

from core.experiment.reporting import plotting, tables
from core.experiment.reporting.advice import advice
from core.experiment.reporting.comparison import comparison
from core.experiment.reporting.tables import AFTER, BEFORE, Results, aligned, gap_lines, policy_table, summary_table
from core.experiment.runs import folders as results
from core.experiment.runs.folders import RunFolder, provenance, require_writable, write_text
from core.experiment.tuning import half_width, student_t_quantile

# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_new_run_has_a_folder_of_its_own_and_is_the_latest(tmp_path):
    first = RunFolder.create(tmp_path, "maddpg", 3, {})
    second = RunFolder.create(tmp_path, "maddpg", 3, {})  # within the same second
    assert first.path != second.path and first.path.name.split("-")[2:4] == ["maddpg", "seed3"]
    assert (tmp_path / "latest").read_text() == second.path.name + "\n"
    assert RunFolder.find(tmp_path).path == second.path
    assert RunFolder.find(tmp_path, first.path.name).path == first.path
    assert RunFolder.find(tmp_path, str(first.path)).path == first.path


def test_a_run_that_is_not_there_is_refused_naming_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="no run to resume.*start a run first"):
        RunFolder.find(tmp_path)
    run = RunFolder.create(tmp_path, "qmix", 0, {})
    with pytest.raises(ValueError, match=f"no run folder 'other'.*{run.path.name}"):
        RunFolder.find(tmp_path, "other")


@pytest.mark.parametrize("content", [None, "{broken", '"text'])
def test_a_missing_or_damaged_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json"):
        RunFolder(tmp_path).read_config()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "summary.csv"
    write_text(path, "old\n")

    def full_disk(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new\n")
    assert path.read_text() == "old\n" and os.listdir(tmp_path) == ["summary.csv"]


def test_a_folder_that_cannot_be_written_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write results to .*--out"):
        require_writable(tmp_path / "file" / "results")


def test_provenance_names_command_versions_commit_and_platform():
    found = provenance()
    assert set(found) == {"command", "started", "versions", "commit", "platform"}
    assert set(found["versions"]) == {"python", *results.PACKAGES}
    json.dumps(found)


def test_tables_survive_writing_and_reading(tmp_path):
    table = pd.DataFrame({"policy": ["a", "b"], "cost": [1.25, 1 / 3]})
    run = RunFolder(tmp_path)
    run.write_table("evaluation", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "evaluation.csv"), table)


# --- statistics -------------------------------------------------------------------------------------------------------


def example_results(seeds: int = 1, episodes: int = 400) -> Results:
    """Costs that share their episodes: before 2 d, after d, the rule d + 1, with d uniform around 10."""
    difficulty = np.random.default_rng(0).uniform(5, 15, episodes)
    tables = [("rule", None, difficulty + 1)]
    for seed in range(seeds):
        tables += [(BEFORE, seed, 2 * difficulty), (AFTER, seed, difficulty + 0.1 * seed)]
    frames = [
        pd.DataFrame(
            {
                "policy": policy,
                "training_seed": np.nan if seed is None else seed,
                "episode": np.arange(episodes),
                "seed": 10_000 + np.arange(episodes),
                "team_return": -costs,
                "cost": costs,
            }
        )
        for policy, seed, costs in tables
    ]
    history = pd.DataFrame({"episode": np.arange(50), "cost": np.linspace(20, 10, 50), "evaluation_cost": np.nan})
    history.loc[[9, 49], "evaluation_cost"] = 15.0, 10.0
    return Results(
        algorithm="maddpg",
        episodes=50,
        histories={seed: history for seed in range(seeds)},
        evaluation=pd.concat(frames, ignore_index=True),
        steps=[],
    )


def test_means_have_the_interval_of_their_episodes():
    found = example_results()
    costs = found.samples(AFTER, "cost")
    assert found.mean(AFTER, "cost") == pytest.approx(costs.mean())
    assert found.interval(AFTER, "cost") == pytest.approx(1.966 * costs.std(ddof=1) / np.sqrt(400), rel=1e-3)


def test_over_several_training_seeds_the_interval_holds_their_luck_and_that_of_the_episodes():
    found = example_results(seeds=3)
    costs = found.evaluation[found.evaluation["policy"] == AFTER].groupby("episode")["cost"].mean()
    episodes, seeds = costs.var(ddof=1) / 400, np.var([0.0, 0.1, 0.2], ddof=1) / 3
    degrees = (episodes + seeds) ** 2 / (episodes**2 / 399 + seeds**2 / 2)
    half = student_t_quantile(degrees) * np.sqrt(episodes + seeds)
    assert found.interval(AFTER, "cost") == pytest.approx(half, rel=1e-3) and episodes > 0.5 * seeds
    _, width = found.gap(AFTER, "rule", "cost")  # paired: what all policies meet in an episode is no luck of one
    assert width / 100 * found.mean("rule", "cost") == pytest.approx(4.3027 * np.sqrt(seeds), rel=0.1)


def test_a_gap_is_paired():
    found = example_results()
    percent, width = found.gap(AFTER, "rule", "cost")
    assert percent == pytest.approx(100 / found.mean("rule", "cost"))
    assert found.gap(AFTER, BEFORE, "cost") == (pytest.approx(50), pytest.approx(0, abs=1e-9)), "half, in every episode"
    # The percentage is of a mean that other episodes would change: as often as a bootstrap of the pairs says.
    rows = found.evaluation.set_index("policy")["cost"]
    own, rival, random = rows[AFTER].to_numpy(), rows["rule"].to_numpy(), np.random.default_rng(0)
    draws = [random.integers(400, size=400) for _ in range(2000)]
    spread = np.std([100 * (1 - own[d].mean() / rival[d].mean()) for d in draws])
    assert width == pytest.approx(1.966 * spread, rel=0.1)


def test_a_share_is_that_of_all_and_its_interval_that_of_a_ratio():
    random = np.random.default_rng(0)
    demand = random.uniform(1, 100, 300)
    unmet = demand * np.clip(0.1 + 0.002 * demand + random.normal(0, 0.02, 300), 0, 1)
    table = pd.DataFrame({"policy": "x", "training_seed": np.nan, "episode": np.arange(300), "demand": demand})
    table["share"] = unmet / demand
    found = Results("a", 0, {}, table, (), weights={"share": "demand"})
    assert found.mean("x", "share") == pytest.approx(unmet.sum() / demand.sum())
    draws = [random.integers(300, size=300) for _ in range(2000)]
    spread = np.std([unmet[d].sum() / demand[d].sum() for d in draws])
    assert found.interval("x", "share") == pytest.approx(1.968 * spread, rel=0.1)


def recorded_results(
    days: int, length: int = 30, seeds: int = 1, episodes: int = 400, rise: float = 1.0, by_day: bool = True
) -> Results:
    """A team and a rule on windows of the same recorded days; the team costs `rise` times as much."""
    rng = np.random.default_rng(days)
    daily, starts = 10 + rng.standard_normal(days), rng.integers(days - length + 1, size=episodes)
    cost = np.array([daily[s : s + length].sum() for s in starts])
    met = np.bincount((starts[:, None] + np.arange(length)).ravel())
    rows = {"episode": np.arange(episodes), "window_start": starts.astype(float), "window_length": float(length)}
    policies = [("rule", np.nan, 1.0, 0.0)]
    policies += [(name, seed, rise, 10.0 * seed) for seed in range(seeds) for name in (BEFORE, AFTER)]
    frames, periods = [], []
    for name, seed, factor, more in policies:
        own = {"policy": name, "training_seed": seed}
        frames.append(pd.DataFrame({**own, **rows, "cost": factor * cost + more}))
        value = length * factor * daily[: len(met)] + more
        periods.append(pd.DataFrame({**own, "period": np.arange(len(met)), "times": met, "cost": value}))
    table, told = (pd.concat(parts).assign(team_return=lambda t: -t["cost"]) for parts in (frames, periods))
    told = told[told["times"] > 0]
    return Results("maddpg", 50, dict.fromkeys(range(seeds)), table, (), by_period=told if by_day else None)


COST = [("cost", "cheaper", "dearer")]


def test_on_recorded_days_policies_are_compared_pair_by_pair():
    found = recorded_results(182, rise=0.9)
    percent, width = found.gap(AFTER, "rule", "cost")
    assert percent == pytest.approx(10.0) and width == pytest.approx(0.0, abs=1e-9), "a tenth less in every episode"
    assert "window_start" not in found.metrics
    samples = found.samples("rule", "cost")
    assert samples.mean() == pytest.approx(found.mean("rule", "cost")) and 5 < len(samples) < 20
    assert half_width(samples) == pytest.approx(found.interval("rule", "cost"))


def test_what_is_known_by_day_has_the_mean_of_the_episodes_and_the_surer_interval():
    by_day, by_window = recorded_results(182), recorded_results(182, by_day=False)
    assert by_day.mean("rule", "cost") == pytest.approx(by_window.mean("rule", "cost"))
    assert 0.3 < by_day.interval("rule", "cost") / by_window.interval("rule", "cost") < 1.5
    assert len(by_day.samples("rule", "cost")) == 13 and len(by_window.samples("rule", "cost")) == 6


def test_the_luck_of_trainings_and_of_the_test_period_add_up_or_the_sentence_says_which_is_missing():
    one, three = recorded_results(182), recorded_results(182, seeds=3)
    assert three.interval(AFTER, "cost") > 10 / np.sqrt(3) > one.interval(AFTER, "cost")
    assert three.interval(AFTER, "cost") > one.interval(AFTER, "cost")
    texts = [comparison(found, [("cost", "cost", "{:.1f}")], COST, ["rule"], "of your data") for found in (one, three)]
    said = [" ".join(text.split()) for text in texts]
    assert "the luck of training is not in it; train.py --seeds 0 1 2 puts it in" in said[0]
    assert "luck of the test period and, of trained teams, that of 3 trainings" in said[1]


def test_a_test_part_that_is_too_short_has_a_sentence_and_no_interval():
    found = recorded_results(30, rise=1.72)
    said = " ".join(comparison(found, [("cost", "cost", "{:.1f}")], COST, ["rule"], "of your data").split())
    assert "±" not in policy_table(found, [("cost", "cost", "{:.1f}")]) and "nan" not in said
    assert "episodes cover 30 days with episodes of 30, too few" in said
    assert "a test part of 49 days, the newest quarter of a file of 196" in said
    assert "72.0 % dearer than rule" in said
    assert recorded_results(48).no_interval and not recorded_results(60).no_interval
    assert "It takes a test part of 90 days" in recorded_results(60, by_day=False).no_interval
    assert "give --eval-episodes 100" in recorded_results(364, episodes=4, by_day=False).no_interval


def test_dearer_is_said_as_plainly_as_cheaper():
    found = recorded_results(60, rise=1.72)
    assert gap_lines(found, ["rule"], COST)[1] == "72.0 % ± 0.0 dearer than rule, the best rule"


def test_beside_next_to_nothing_no_percentage_is_made():
    found = recorded_results(60, rise=1e6)
    assert gap_lines(found, ["rule"], COST)[1] == "more than a hundred times dearer than rule, the best rule"


def test_a_share_stands_beside_the_rivals_and_no_percentage_of_it_is_made():
    found = example_results()
    found.evaluation["risk"] = np.where(found.evaluation["policy"] == AFTER, 0.04, 0.07)
    gaps = [*COST, ("risk", "over the risk limit {:.2f} % of the time, there {:.2f} %")]
    line = gap_lines(found, ["rule"], gaps)[1]
    assert line.endswith("than rule, the best rule; over the risk limit 0.04 % of the time, there 0.07 %")


def test_the_last_words_say_which_policy_to_use_how_sure_and_with_which_levels():
    found = recorded_results(182, rise=1.2)
    found.levels = {"rule": {"min": {"berlin": 2.0, "lyon": 1.5}, "max": {"berlin": 9.25, "lyon": 4.0}}}
    said = comparison(found, [("cost", "cost", "{:.1f}")], COST, ["rule"], "of your data, 2024-07-03 to 2024-12-31")
    last = " ".join(said.split("\n\n")[-1].split())
    assert re.match(
        r"Use rule: 16\.\d % ± \d\.\d cheaper than the next best, after training, on 400 unseen episodes", last
    )
    assert (
        "2024-07-03 to 2024-12-31" in last and "Its levels: min: berlin 2, lyon 1.5; max: berlin 9.25, lyon 4" in last
    )
    assert "Levels of the rules" in said and said.index("Levels of the rules") < said.index("Use rule")
    team = advice(recorded_results(182, rise=0.8), COST[0], "these days")
    assert team.startswith("Use the MADDPG team after training (checkpoint.pt): 20")
    assert "Another training may turn out otherwise" in team


def test_what_cannot_be_told_apart_is_said_and_what_sees_all_is_not_recommended():
    found = example_results()
    noisy = found.evaluation["policy"] == "rule"
    found.evaluation.loc[noisy, "cost"] += np.random.default_rng(1).normal(-1, 5, noisy.sum())
    assert "cannot be told apart here: take the one that is simpler" in advice(found, COST[0], "these")
    found.evaluation.loc[noisy, "team_return"] += 100.0
    found = dataclasses.replace(found, all_seeing=["rule"])  # another one, since what was looked up is kept
    assert advice(found, COST[0], "these").startswith("Use the MADDPG team")
    assert "Rule, which must see all queues: " in advice(found, COST[0], "these")


def test_the_caution_comes_before_every_result_and_is_remembered_at_the_end():
    said = comparison(example_results(), [("cost", "cost", "{:.1f}")], COST, ["rule"], "of your data", caution="look")
    assert said.splitlines()[1] == "CAUTION: look" and said.endswith("Mind the caution above.")


def test_the_closed_gap_counts_from_the_plain_rule_to_the_bound(tmp_path):
    columns = "difficulty,name,metric,mean,half_width,best_rule,difference,difference_half_width"
    path, means = tmp_path / "bounds.csv", {"plain": 60.0, "best": 40.0}
    path.write_text(
        f"{columns}\neasy,clairvoyant bound,cost,18,3,best,-19,1\nhard,clairvoyant bound,cost,18,1,best,-19,3\n"
    )
    easy, hard = (tables.stored_gap(path, difficulty, "plain", means) for difficulty in ("easy", "hard"))
    assert (easy.bound, easy.half_width) == (21.0, 1.0), "the distance to the rule is the surer of the two"
    assert (hard.bound, hard.half_width) == (18.0, 1.0)
    assert [hard.closed(value) for value in (60.0, 39.0, 18.0, 81.0)] == ["0", "50", "100", "-50"]
    assert hard.closed(29.0, rule=40.0) == "50"
    assert tables.stored_gap(path, "medium", "plain", means) is None
    with pytest.raises(FileNotFoundError):
        tables.stored_gap(tmp_path / "none.csv", "easy", "plain", means)
    gap, found = tables.Gap("rule", "cost", 20.0, 5.0, 1.0), example_results()
    text = policy_table(found, (("cost, $", "cost", "{:.1f}"),), gap).splitlines()
    assert [line.split()[-1] for line in text[:3]] == ["gap", "closed,", "%"]
    assert text[-1].split()[-1] == gap.closed(found.mean(AFTER, "cost")) != "0"


def test_gap_lines_name_luck_where_the_interval_holds_zero():
    found = example_results()
    noisy = found.evaluation["policy"] == "rule"
    found.evaluation.loc[noisy, "cost"] += np.random.default_rng(1).normal(-1, 5, noisy.sum())
    before, rule = gap_lines(found, ["rule", "absent"], COST)
    assert before.startswith("50.0 %") and before.endswith("cheaper than before training")
    assert "(may be luck)" in rule and rule.endswith("than rule, the best rule")


def test_the_summary_has_a_row_a_policy_and_an_interval_a_metric():
    table = summary_table(example_results(seeds=2))
    assert list(table["policy"]) == ["rule", BEFORE, AFTER] and list(table["training_seeds"]) == [1, 2, 2]
    assert {"cost", "cost_ci95", "team_return", "team_return_ci95"} <= set(table.columns)


def test_the_printed_table_is_aligned_and_ends_with_the_best():
    text = policy_table(example_results(), (("cost, $", "cost", "{:.1f}"),))
    lines = text.splitlines()
    assert len(lines) == 5 and lines[2].startswith("> before") and lines[-1].startswith("> after")
    assert len({line.rindex("±") for line in lines[2:]}) == 1, "the numbers stand below each other"
    assert aligned([["", "a"], ["x", "1"]]).splitlines()[1] == "----"
    table = aligned([["", "a long header", "b"], ["x", "12345", "7"]])
    assert table == "   a long\n   header  b\n------------\nx   12345  7", "a header is no wider than it must be"


# --- pictures ---------------------------------------------------------------------------------------------------------


def png_size(path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_every_picture_is_wide_enough_and_whole(tmp_path):
    found = example_results(seeds=2)
    rules = {f"rule {i}": 10.0 + 0.01 * i for i in range(5)}  # lines so close that their names must move apart
    curve = {"title": "t", "unit": "$", "bound": ("bound", 5.0), "start": 20.0}
    plotting.learning_curve(tmp_path / "a.png", found.curves("cost"), rules, **curve)
    parts, bars = {"p": [1, 2], "q": [3, 4]}, {"team": 0, "title": ""}
    plotting.stacked_bars(tmp_path / "b.png", ["x", "y"], parts, [(0.0, 0.0), (2.0, np.nan)], unit="$", **bars)
    panel = plotting.Panel("cost", "$", [1.0, 2.0], [0.1, np.nan], ("limit", 1.5))
    plotting.bar_panels(tmp_path / "c.png", ["x", "y"], [panel, panel], note="n", **bars)
    series = plotting.Panel("stock", "units", {"one": np.arange(5.0), "two": np.ones(5), "three": np.ones(5)})
    looks = {"one": ("area", "red"), "two": ("bars", "blue")}
    plotting.time_panels(tmp_path / "d.png", np.arange(5), [series, series], title="t", xlabel="day", looks=looks)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    assert all(png_size(path)[0] >= 1000 for path in tmp_path.iterdir())


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure that a function of plotting was about to save."""
    figures = []
    monkeypatch.setattr(plotting, "_save", lambda figure, path: figures.append(figure))

    def draw(function, *arguments, **options):
        function(tmp_path / "x.png", *arguments, **options)
        return figures.pop()

    return draw


def test_the_learning_curve_is_of_unseen_episodes_and_gives_no_colour_twice(drawn):
    found = example_results()
    found = dataclasses.replace(found, known=found.histories)
    rules, bound = {f"rule {i}": 11.0 + i for i in range(5)}, ("bound", 5.0)
    figure = drawn(plotting.learning_curve, found.curves("cost"), rules, title="t", unit="$", bound=bound, start=20.0)
    lines = figure.axes[0].get_lines()
    forms = [line for line in lines if list(line.get_xdata()) == [10, 50]]
    assert [list(line.get_ydata()) for line in forms] == 2 * [[15.0, 10.0]], "the evaluations, not the training"
    flat = [line for line in lines if list(line.get_xdata()) == [0, 1] and len(set(line.get_ydata())) == 1]
    assert {line.get_ydata()[0] for line in flat} == {5.0, 11.0, 12.0, 13.0, 14.0, 15.0}
    assert len({line.get_color() for line in (*forms, *flat)}) == len(forms) + len(flat)
    named = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "bound  5" in named and all(rule in named for rule in rules)


def test_without_an_evaluation_on_the_way_the_curve_is_the_training(drawn):
    found = example_results()
    found.histories[0]["evaluation_cost"] = np.nan
    figure = drawn(plotting.learning_curve, found.curves("cost"), {"rule": 11.0}, title="t", unit="$")
    assert "in training" in figure.axes[0].get_legend().get_texts()[0].get_text()


def test_whiskers_are_those_of_paired_differences(drawn):
    found = example_results()
    labels = found.ranked("cost")
    differences = [found.difference(AFTER, label, "cost") for label in labels]
    assert differences[2] == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9)), "the rule is 1 dearer in every episode"
    assert found.interval("rule", "cost") > 0.2, "although its episodes differ"
    parts = {"cost": [found.mean(label, "cost") for label in labels]}
    figure = drawn(plotting.stacked_bars, labels, parts, differences, team=1, title="t", unit="$")
    assert "(+1.0 ± 0.0)" in figure.axes[0].texts[2].get_text() and "±" not in figure.axes[0].texts[1].get_text()


@pytest.mark.parametrize("positions", [[1.0, 1.0, 1.0], [0.0, 0.01, 0.99, 1.0], [0.5], []])
def test_names_of_lines_move_apart_and_keep_their_order(positions):
    placed = plotting.spread(positions, 0.2, 0.0, 1.0)
    assert np.all(np.diff(np.sort(placed)) >= 0.2 - 1e-9)
    assert np.all((placed >= -1e-9) & (placed <= 1 + 1e-9))
    assert list(np.argsort(positions, kind="stable")) == list(np.argsort(placed, kind="stable"))


def test_trainings_that_were_evaluated_at_other_episodes_share_a_curve():
    at, means = plotting.mean_by_episode([([10, 20, 30], [1.0, 2.0, 3.0]), (np.array([15, 30]), np.array([9.0, 5.0]))])
    assert at.tolist() == [10, 15, 20, 30] and means.tolist() == [1.0, 9.0, 2.0, 4.0]


def test_a_running_mean_of_a_constant_is_the_constant():
    mean = plotting.running_mean(np.full(10, 3.0), 4)
    assert mean.shape == (7,) and np.allclose(mean, 3.0)


def test_a_folder_that_cannot_be_filled_is_not_left_behind(tmp_path, monkeypatch):
    def full(self, config):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_config", full)
    with pytest.raises(OSError, match="No space"):
        RunFolder.create(tmp_path, "maddpg", 3, {})
    assert not list(tmp_path.iterdir()), "no hidden folder, and no latest"


def test_a_new_run_is_locked_before_anybody_can_find_it(tmp_path):
    run = RunFolder.create(tmp_path, "maddpg", 3, {})
    with pytest.raises(ValueError, match=f"process {os.getpid()} is working on this run"):
        RunFolder.find(tmp_path).lock()
    run.unlock()
    RunFolder.find(tmp_path).lock()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_lies_under_the_name_of_the_lock_is_left_alone(tmp_path, kind):
    victim, lock = tmp_path / "victim", tmp_path / ".lock"
    victim.write_text("mine")
    {"link": lambda: lock.symlink_to(victim), "pipe": lambda: os.mkfifo(lock), "folder": lock.mkdir}[kind]()
    with pytest.raises(ValueError, match=r"\.lock is no (file that can be locked|regular file)"):
        RunFolder(tmp_path).lock()
    assert victim.read_text() == "mine"
