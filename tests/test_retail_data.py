"""A planner's own sales: what a file may look like, what is fitted on which part of it, and what is refused."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.experiment.evaluation import evaluate
from retail import data, records
from retail.constants import RetailConstants
from retail.data import data_report, write_example
from retail.environment import OBSERVATION_NAMES
from retail.records import load_sales
from retail.replay import RecordedWarehouses, Windows, recorded_baselines, recorded_env, tuned_on

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "retail/example_sales.csv"
MONDAY = date(2024, 1, 1)


def write(path: Path, rows, header: str = "date,warehouse,units") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def sales_file(folder: Path, units, names="ab", days: int = 1, first: date = MONDAY) -> Path:
    """A file of (P, N) units, a row for every period and warehouse."""
    rows = [
        (first + timedelta(days=days * p), name, u)
        for p, row in enumerate(units)
        for name, u in zip(names, row, strict=True)
    ]
    return write(folder / "sales.csv", rows)


def poisson(periods: int, means=(3.0, 1.0), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(means, (periods, len(means))).astype(float)


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_file_is_what_its_script_writes(tmp_path):
    write_example(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == EXAMPLE.read_bytes()
    assert EXAMPLE.stat().st_size < 300_000


def test_the_example_is_never_written_over_a_file(tmp_path, capsys):
    mine = tmp_path / "mine.csv"
    mine.write_text("date,warehouse,units\n")
    for path in (mine, tmp_path):
        assert data.main(["--example", str(path)]) == 2 and "is there already" in capsys.readouterr().err
    assert mine.read_text() == "date,warehouse,units\n"
    assert [data.main(["--example", str(tmp_path / "new.csv")]) for _ in range(2)] == [0, 0], (
        "the same bytes are no loss"
    )


def test_lumps_that_the_assumed_supplier_cannot_ship_are_told(tmp_path):
    units = np.zeros((400, 2))
    units[::10], units[5::20, 1] = (12.0, 0.0), 4.0
    path = sales_file(tmp_path, units, names="ab")
    assert "one alone sold up to 12. If yours can deliver more, say so" in data_report(load_sales(path))
    path.with_name(path.stem + ".constants.json").write_text('{"supplier_capacity": 40}')
    assert "one alone sold" not in data_report(load_sales(path))


def test_the_report_of_the_example_tells_rows_gaps_duplicates_split_and_constants(capsys):
    assert data.main([str(EXAMPLE)]) == 0
    report = capsys.readouterr().out
    for words in (
        "2,713 rows",
        "730 days, 5 warehouses",
        "3 repeated lines dropped (lines 1003 to 1005)",
        "940 of 3,650",
        "1 day from 2024-04-18",
        "training: 2023-01-02 to 2024-07-02 (548 days)",
        "test: 2024-07-03 to 2024-12-31 (182 days)",
        "rostock",
        "supplier_capacity",
        "6 episodes without overlap",
        "Sales are taken for demand",
    ):
        assert words in report, words


# --- from rows to a matrix --------------------------------------------------------------------------------------------


def test_rows_become_days_by_warehouses_whatever_their_order(tmp_path):
    units = poisson(100)
    path = sales_file(tmp_path, units)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], *reversed(lines[2:])]))
    sales = load_sales(path)
    assert sales.warehouses == ("a", "b") and sales.days == 1 and sales.first == MONDAY
    np.testing.assert_array_equal(sales.units, units)


def test_warehouses_keep_the_order_of_the_file_because_neighbours_share(tmp_path):
    assert load_sales(sales_file(tmp_path, poisson(100), names=("west", "east"))).warehouses == ("west", "east")


def test_no_row_means_no_sales_and_the_report_says_how_often(tmp_path):
    units = poisson(100, (0.3, 0.1))
    units[0] = units[-1] = 1
    rows = [(MONDAY + timedelta(days=int(p)), "ab"[i], units[p, i]) for p, i in np.argwhere(units > 0)]
    sales = load_sales(write(tmp_path / "sales.csv", rows))
    np.testing.assert_array_equal(sales.units, units)
    assert f"{int((units == 0).sum())} of 200 pairs of day and warehouse have no row" in data_report(sales)


def test_dates_a_week_apart_are_weeks(tmp_path):
    sales = load_sales(sales_file(tmp_path, poisson(60), days=7))
    assert sales.days == 7 and sales.horizon == 13 and len(sales.units) == 60
    assert sales.constants["holding_cost"] == pytest.approx(7 * RetailConstants().holding_cost)
    assert "60 weeks" in data_report(sales)


def test_repeated_lines_among_totals_are_dropped(tmp_path):
    path = sales_file(tmp_path, poisson(100))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[7]]))
    sales = load_sales(path)
    np.testing.assert_array_equal(sales.units, poisson(100))
    assert "1 repeated line dropped (line 202)" in data_report(sales)


def test_a_list_of_single_sales_is_added_up(tmp_path):
    units = poisson(100)
    units[0] = [2, 1]
    sales = np.repeat(np.argwhere(units), units[units > 0].astype(int), axis=0)  # (a unit, its day and warehouse)
    rows = [(MONDAY + timedelta(days=int(p)), "ab"[i], 1) for p, i in sales]
    sales = load_sales(write(tmp_path / "sales.csv", rows))
    np.testing.assert_array_equal(sales.units, units[: len(sales.units)])
    assert "a list of sales" in data_report(sales)


def test_spreadsheet_habits_are_understood(tmp_path):
    """A byte order mark, capital letters, blanks, other columns, times of day, Windows line ends, empty lines."""
    days = [MONDAY + timedelta(days=p) for p in range(100)]
    rows = "".join(f" {day} 00:00:00 ,x,{name}, {p % 3}\r\n" for p, day in enumerate(days) for name in "ab")
    (tmp_path / "sales.csv").write_bytes(b"\xef\xbb\xbfDate,SKU, Warehouse ,UNITS\r\n" + rows.encode() + b"\r\n,,,\r\n")
    sales = load_sales(tmp_path / "sales.csv")
    np.testing.assert_array_equal(sales.units, np.repeat(np.arange(100.0)[:, None] % 3, 2, axis=1))
    assert "ignored columns: SKU" in data_report(sales) and "2 empty lines" in data_report(sales)


# --- split and fit ----------------------------------------------------------------------------------------------------


def test_training_is_older_than_the_test_and_alone_decides_the_constants(tmp_path):
    units = poisson(200)
    sales = load_sales(sales_file(tmp_path, units))
    np.testing.assert_array_equal(sales.part(evaluation=False), units[:150])
    np.testing.assert_array_equal(sales.part(evaluation=True), units[150:])
    changed = units.copy()
    changed[150:] = 50 * units[150:] + 7
    again = load_sales(sales_file(tmp_path, changed))
    assert again.constants == sales.constants
    assert again.units.max() > 50, "the changed file was read anew"


def test_constants_keep_the_default_ratios_to_mean_demand(tmp_path):
    units = np.tile([[4.0, 2.0]], (200, 1))  # even: no lump is larger than the ratios provide for
    constants, default = load_sales(sales_file(tmp_path, units)).constants, RetailConstants()
    total = sum(default.mean_demand)
    assert constants["mean_demand"] == [4.0, 2.0]
    assert constants["supplier_capacity"] / 6.0 == pytest.approx(default.supplier_capacity / total)
    np.testing.assert_allclose(constants["order_limit"], np.array([4.0, 2.0]) * 5 * default.order_limit / total)
    np.testing.assert_allclose(constants["storage"], np.array([4.0, 2.0]) * sum(default.storage) / total)
    assert constants["lane_limit"] / 3.0 == pytest.approx(default.lane_limit / (total / 5))


def test_sparse_demand_gets_limits_that_hold_its_lumps_and_plays(tmp_path):
    rng = np.random.default_rng(0)
    units = rng.poisson(2.0, (400, 3)).astype(float)
    units[:, 2] = np.where(rng.random(400) < 0.02, 12.0, 0.0)  # one sale of a dozen every seven weeks
    path = sales_file(tmp_path, units, names="abc")
    constants = load_sales(path).constants
    assert constants["order_limit"][2] >= 12 and constants["storage"][2] >= 12
    env = recorded_env(path, evaluation=True, num_envs=20)
    observations, over = env.reset(10_000), False
    assert np.isfinite(observations).all()
    while not over:
        observations, rewards, dones, info = env.step(np.full((20, 3, 1), 0.3))
        assert np.isfinite(observations).all() and np.isfinite(rewards).all()
        over = dones.all()
    assert (info["episode_metrics"]["fill_rate"] > 0.5).all()


def test_a_demand_average_follows_changes_as_fast_as_the_data_asks(tmp_path):
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(1, 20, (20, 2)), 20, axis=0)  # a new level every 20 days
    jumpy = load_sales(sales_file(tmp_path, np.round(level + rng.normal(0, 0.1, level.shape), 3))).constants
    calm = load_sales(sales_file(tmp_path, rng.poisson(5.0, (400, 2)))).constants
    assert jumpy["average_weight"] == max(records.AVERAGE_WEIGHTS) and calm["average_weight"] <= 0.1


def test_a_warehouse_that_sold_nothing_in_training_is_dropped_and_named(tmp_path):
    units = poisson(200, (3.0, 1.0, 2.0))
    units[:160, 1] = 0
    sales = load_sales(sales_file(tmp_path, units, names=("a", "closed", "c")))
    assert sales.warehouses == ("a", "c") and sales.units.shape == (200, 2)
    assert "dropped: closed, which sold nothing in the training part" in data_report(sales)


def test_what_the_planner_knows_replaces_what_is_assumed(tmp_path):
    path = sales_file(tmp_path, poisson(120))
    before = load_sales(path)
    known = {"lead_times": {"b": 3, "a": 1}, "stockout_cost": 25.0}
    (tmp_path / "sales.constants.json").write_text(json.dumps(known))
    sales = load_sales(path)
    assert before.constants["lead_times"] == [1, 1] and sales.constants["lead_times"] == [1, 3]
    assert RecordedWarehouses(sales).constants.stockout_cost == 25.0
    assert "known from sales.constants.json: lead_times, stockout_cost" in data_report(sales)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{stockout: 1}", "not valid JSON"),
        ("[1]", "a list"),
        ('{"stockout_cots": 1}', "did you mean 'stockout_cost'?"),
        ('{"mean_demand": [1, 2]}', "comes from the data"),
        ('{"lead_times": {"a": 1}}', "give it for a, b"),
        ('{"lead_times": [1, 2, 3]}', "one a warehouse"),
        ('{"storage": -4}', "must be > 0"),
        ('{"storage": ' + "[" * 100_000 + "1" + "]" * 100_000 + "}", "not valid JSON"),
        ('{"storage": ' + "[" * 500 + "1" + "]" * 500 + "}", "storage"),
        ('{"storage": NaN}', "storage"),
    ],
)
def test_constants_that_make_no_sense_are_refused(tmp_path, content, found):
    path = sales_file(tmp_path, poisson(120))
    (tmp_path / "sales.constants.json").write_text(content)
    with pytest.raises(ValueError, match="sales.constants.json") as refusal:
        load_sales(path)
    assert found in str(refusal.value)


# --- episodes ---------------------------------------------------------------------------------------------------------


def numbered(periods: int, n: int = 2) -> np.ndarray:
    """(P, N) units that tell which period they are from: warehouse i sells p + 1000 i."""
    return np.arange(periods, dtype=float)[:, None] + 1000.0 * np.arange(n)


def test_test_episodes_are_consecutive_days_of_the_test_part():
    windows, rng = Windows(numbered(60), horizon=30), np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        demand = windows(rng)
        assert demand.shape == (38, 2)
        start = int(demand[0, 0])
        np.testing.assert_array_equal(demand[:30], numbered(60)[start : start + 30])
        starts.add(start)
    assert starts == set(range(31)), "every window comes up, the last one too"


def test_blocks_are_whole_weeks_of_the_same_season_with_the_warehouses_together():
    units, rng = numbered(800), np.random.default_rng(0)
    windows = Windows(units, horizon=30, blocks=True)
    for _ in range(100):
        demand = windows(rng)
        start = windows.starts[-1]
        np.testing.assert_array_equal(demand[:, 1] - demand[:, 0], 1000.0)  # warehouses of one day stay together
        for block in range(5):
            period = demand[7 * block : 7 * block + 7, 0]
            np.testing.assert_array_equal(np.diff(period), 1.0)
            apart = period[0] - (start + 7 * block)
            assert apart % 7 == 0, "the same weekday"
            assert abs((apart + 365.25 / 2) % 365.25 - 365.25 / 2) <= 45, "the same season"
    assert len({*np.diff(windows.starts)}) > 50


def test_blocks_of_less_than_a_year_come_from_the_nearest_season():
    windows = Windows(numbered(90), horizon=30, blocks=True)
    assert len(windows.candidates(89 + 30)) >= 1 and windows.candidates(89 + 30).min() >= 60
    assert Windows(numbered(26), horizon=13, days=7, blocks=True)(np.random.default_rng(0)).shape == (21, 2)


def test_training_never_meets_the_test_period(tmp_path):
    sales = load_sales(sales_file(tmp_path, numbered(200)))
    for blocks in (False, True):
        env = RecordedWarehouses(sales, num_envs=50, blocks=blocks)
        for seed in range(4):
            env.reset(1000 * seed)
            assert max(env.episode(e).demand[:, 0].max() for e in range(50)) < sales.training
    test = RecordedWarehouses(sales, evaluation=True, num_envs=50)
    test.reset(0)
    assert min(test.episode(e).demand[:, 0].min() for e in range(50)) >= sales.training


def test_the_weekday_that_is_observed_is_that_of_the_calendar(tmp_path):
    sales = load_sales(sales_file(tmp_path, numbered(200), first=date(2024, 1, 4)))  # a Thursday
    env = RecordedWarehouses(sales, evaluation=True, num_envs=20)
    observations = env.reset(10_000)
    sine, cosine = (OBSERVATION_NAMES.index(name) for name in ("week_sin", "week_cos"))
    for e in range(20):
        weekday = sales.day(int(env.episode(e).demand[0, 0])).weekday()
        assert observations[e, 0, sine] == pytest.approx(np.sin(2 * np.pi * weekday / 7), abs=1e-6)
        assert observations[e, 0, cosine] == pytest.approx(np.cos(2 * np.pi * weekday / 7), abs=1e-6)


def test_a_stacked_copy_is_the_single_environment_of_its_seed(tmp_path):
    sales = load_sales(sales_file(tmp_path, poisson(200)))
    stacked, single = RecordedWarehouses(sales, num_envs=3), RecordedWarehouses(sales)
    np.testing.assert_array_equal(stacked.reset(7)[2], single.reset(9))
    for _ in range(30):
        actions = np.full((2, 1), 0.4)
        many, one = stacked.step(np.tile(actions, (3, 1, 1))), single.step(actions)
        np.testing.assert_array_equal(many[0][2], one[0])
        np.testing.assert_array_equal(many[1][2], one[1])


# --- classical rules --------------------------------------------------------------------------------------------------


def test_the_classical_rules_are_tuned_anew_on_the_training_part(tmp_path):
    units = poisson(300, (6.0, 2.0, 1.0))
    path = sales_file(tmp_path, units, names="abc")
    env = recorded_env(path, evaluation=True, num_envs=60)
    budget = dict(episodes=20, population=6, iterations=3)
    rules = recorded_baselines(env, **budget)

    def cost(rule) -> float:
        observations, total = env.reset(10_000), 0.0
        for _ in range(30):
            observations, rewards, _, _ = env.step(rule(observations))
            total -= rewards.sum() / 60
        return total

    assert cost(rules["base-stock, tuned jointly"]) < 0.7 * cost(rules["random"])
    dear = recorded_env(path, evaluation=True, num_envs=60, stockout_cost=0.2, holding_cost=5.0)
    levels = [tuned_on(e.sales, e.constants, **budget)["base_stock_joint"]["level"] for e in (env, dear)]
    assert sum(levels[0]) > sum(levels[1]), "who pays more for stock holds less"
    found = tuned_on(env.sales, env.constants, **budget)
    units[env.sales.training :] += 30
    changed = load_sales(sales_file(tmp_path, units, names="abc"))
    assert tuned_on(changed, env.constants, **budget) == found, "the test part is not seen"


# --- what is refused --------------------------------------------------------------------------------------------------

HEADER = "date,warehouse,units\n"
GOOD = HEADER + "".join(f"{MONDAY + timedelta(days=p)},{w},{p % 4}\n" for p in range(100) for w in "ab")
MONTHS = HEADER + "".join(f"202{y}-{m:02d}-01,{w},1\n" for y in range(4) for m in range(1, 13) for w in "ab")
WEEKS = HEADER + "".join(f"{MONDAY + timedelta(days=7 * p + (p == 20))},{w},1\n" for p in range(60) for w in "ab")


def with_line(number: int, text: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


REFUSED = {
    "empty file": ("", ["is empty", "give a header"]),
    "blank file": ("\n \n", ["is empty"]),
    "header alone": ("date,warehouse,units\n", ["no row", "under the header"]),
    "no header": (GOOD.split("\n", 1)[1], ["the first line is no header", "date, warehouse, units", "'2024-01-01'"]),
    "missing column": (GOOD.replace("units", "sold", 1), ["the column units cannot be found", "'sold'"]),
    "misspelt column": (GOOD.replace("units", "unts", 1), ["'units' for 'unts'", "rename"]),
    "column twice": (GOOD.replace("date,warehouse", "date,units,warehouse", 1), ["'units' is there 2 times"]),
    "semicolons": (GOOD.replace(",", ";"), ["separated by ';'", "save the file with commas"]),
    "not a CSV": (b"PK\x03\x04" + bytes(100), ["workbook", "save the sheet"]),
    "binary": (bytes(range(256)), ["not a CSV"]),
    "latin-1": (with_line(9, "2024-01-04,Köln,3").encode("latin-1"), ["UTF-8"]),
    "short row": (with_line(9, "2024-01-04,b"), ["line 9: 2 fields, the header has 3"]),
    "long row": (with_line(9, "2024-01-04,b,1,2"), ["line 9: 4 fields", "comma or quote"]),
    "no such day": (with_line(9, "2024-02-30,b,1"), ["line 9: date is '2024-02-30', no date", "YYYY-MM-DD"]),
    "ambiguous date": (with_line(9, "01/02/2024,b,1"), ["line 9: date is '01/02/2024', no date"]),
    "no date": (with_line(9, ",b,1"), ["line 9: date is '', no date"]),
    "mistyped year": (with_line(9, "0224-01-04,b,1"), ["line 9", "year"]),
    "a code for nothing": (with_line(9, "2024-01-04,b,-999"), ["line 9: units is -999, which stands for a missing"]),
    "units in words": (with_line(9, "2024-01-04,b,many"), ["line 9: units is 'many', no number"]),
    "decimal comma": (with_line(9, '2024-01-04,b,"1,5"'), ["line 9: units is '1,5', no number", "point"]),
    "no units": (with_line(9, "2024-01-04,b,"), ["line 9: units is empty"]),
    "not a number": (with_line(9, "2024-01-04,b,nan"), ["line 9: units is 'nan', no number"]),
    "infinite units": (with_line(9, "2024-01-04,b,inf"), ["line 9: units is 'inf', no number"]),
    "no name": (with_line(9, "2024-01-04,,3"), ["line 9: warehouse is empty"]),
    "mixed time zones": (with_line(9, "2024-01-04 00:00+02:00,b,3"), ["line 9: mixed time zones: +02:00", "one zone"]),
    "one warehouse": (GOOD.replace(",b,", ",a,"), ["only the warehouse 'a'", "two or more"]),
    "one seller": (re.sub(",b,.", ",b,0", GOOD), ["1 warehouse sold", "two or more"]),
    "too little": ("\n".join(GOOD.splitlines()[:121]), ["60 days were found, too little data", "at least 90"]),
    "one day": ("date,warehouse,units\n2024-01-01,a,1\n2024-01-01,b,1\n", ["a single date"]),
    "months": (MONTHS, ["28 days apart", "add the sales up"]),
    "a week on another day": (WEEKS, ["line 42: date is '2024-05-21', no Monday", "line 43"]),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_file_that_cannot_be_used_is_refused_with_lines_what_was_found_and_what_to_do(tmp_path, name, capsys):
    content, found = REFUSED[name]
    path = tmp_path / "sales.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="sales.csv") as refusal:
        load_sales(path)
    assert [words for words in found if words not in str(refusal.value)] == [], str(refusal.value)
    assert data.main([str(path)]) == 2 and "sales.csv" in capsys.readouterr().err


def test_every_bad_line_is_told_at_once_and_many_are_counted(tmp_path):
    lines = GOOD.splitlines()
    for k in range(3, 30):
        lines[k] = lines[k][:-1] + "x"
    lines[1] = "2024-01-01,,1"
    (tmp_path / "sales.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError) as refusal:
        load_sales(tmp_path / "sales.csv")
    message = str(refusal.value)
    assert "28 lines cannot be used" in message and "line 2: warehouse is empty" in message
    assert "line 4: units is 'x'" in message and "and 18 more lines" in message


def test_line_numbers_are_those_of_the_file_even_after_quoted_line_breaks(tmp_path):
    text = GOOD.replace("units", "units,note", 1).replace("\n", ",\n").replace("units,note,", "units,note", 1)
    lines = text.splitlines()
    lines[4], lines[9] = '2024-01-02,b,1,"two\nlines"', "2024-01-05,b,x,"
    (tmp_path / "sales.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 11: units is 'x'"):
        load_sales(tmp_path / "sales.csv")


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        load_sales(tmp_path / "missing.csv")
    assert data.main([str(tmp_path / "missing.csv")]) == 2 and "missing.csv" in capsys.readouterr().err


def test_what_every_test_day_cost_adds_up_to_what_the_episodes_did(tmp_path):
    """With it, overlapping episodes are counted for what they are worth (core/experiment/reporting/windows.py)."""
    sales = load_sales(sales_file(tmp_path, poisson(300)))
    half = lambda seen: np.full((*seen.shape[:-1], 1), 0.3)  # noqa: E731
    table = evaluate(RecordedWarehouses(sales, evaluation=True, num_envs=7), half, 20)
    days = table.attrs["periods"]
    assert days["times"].sum() == 20 * 30 and 0 <= days["period"].min() <= days["period"].max() < 75
    share = days["times"] / days["times"].sum()
    for metric in ("total_cost", "team_return", "units_moved", "on_hand", "inventory_balance", "stockout_cost"):
        assert share @ days[metric] == pytest.approx(table[metric].mean(), rel=1e-5), metric
    lost = (table["stockout_percent"] * table["demand"]).sum() / table["demand"].sum()
    assert (share @ days["stockout_percent"]) / (share @ days["demand"]) == pytest.approx(lost)
