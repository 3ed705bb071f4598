"""One look at a planner's sales: what would be trained on or judged wrongly is refused, or told beside the result."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from retail.records import load_sales

DAYS = 120  # of which the last 30 are the test part, from 2024-03-31
FIRST = date(2024, 1, 1)


def sold(means=(6.0, 4.0, 2.0), days: int = DAYS, seed: int = 0) -> np.ndarray:
    """(P, N) units, a sale or more a day."""
    return 1 + np.random.default_rng(seed).poisson(means, (days, len(means)))


def read(folder, units, names="abcdefghijklmnopqrstuvwxyz", stamp=str, more=(), listed=None):
    """Load (P, N) units; `listed` (P, N): which have a row; `more`: further lines."""
    rows = [
        f"{stamp(FIRST + timedelta(days=int(p)))},{names[i]},{units[p, i]}"
        for p, i in np.argwhere(np.ones(np.shape(units), bool) if listed is None else listed)
    ]
    (folder / "sales.csv").write_text("\n".join(["date,warehouse,units", *rows, *more]) + "\n", encoding="utf-8")
    return load_sales(folder / "sales.csv")


def refusal(folder, *args, **options) -> str:
    with pytest.raises(ValueError, match="sales.csv") as error:
        read(folder, *args, **options)
    return str(error.value)


def cautions(sales) -> str:
    return "\n".join(note for note in sales.notes if note.startswith("CAUTION"))


# --- names that begin or end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [90, 100, 60])
def test_a_warehouse_with_another_name_from_a_day_on_is_refused(tmp_path, at):
    units = np.hstack([sold(), sold((4.0,), seed=1)])
    units[at:, 1], units[:at, 3] = 0, 0
    message = refusal(tmp_path, units, listed=units > 0)
    began = FIRST + timedelta(days=at)
    assert f"'d' begins on {began} and 'b' sells nothing after {began - timedelta(days=1)}" in message or at > 90
    assert "'d'" in message and "one name throughout" in message


def test_all_names_changed_with_the_test_part_are_named(tmp_path):
    units = np.hstack([sold(), sold()])
    units[90:, :3], units[:90, 3:] = 0, 0
    message = refusal(tmp_path, units, listed=units > 0)
    assert "'d', 'e', 'f' begin on 2024-03-31 and 'a', 'b', 'c' sell nothing after 2024-03-30" in message
    assert "100 % of its units are of new names" in message


def test_a_new_warehouse_and_one_that_closes_are_told(tmp_path):
    units = sold()
    units[:100, 2] = 0
    assert "'c' begins on 2024-04-10" in cautions(read(tmp_path, units))
    units = sold()
    units[70:, 2] = 0
    assert "nothing is sold by 'c' after 2024-03-10: closed, or not booked yet?" in cautions(read(tmp_path, units))
    assert cautions(read(tmp_path, sold())) == ""


# --- sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [slice(None), slice(0, 15), slice(100, None)])
@pytest.mark.parametrize("members", [(0, 1, 2), (0, 1), (1, 2)])
@pytest.mark.parametrize("digits", [0, -1, -2])
def test_a_warehouse_that_is_the_sum_of_others_is_refused_with_their_names(tmp_path, days, members, digits):
    units = 100 * sold() + sold(seed=1)
    total = np.zeros((DAYS, 1), int)
    total[days, 0] = np.round(units[days][:, members].sum(axis=1), digits)
    message = refusal(tmp_path, np.hstack([units, total]), names=("a", "b", "c", "north"))
    assert "'north' is the sum of " + ("the others (" if len(members) == 3 else "") in message
    assert ", ".join(repr("abc"[i]) for i in members) in message and "leave its rows out" in message


def test_regions_and_their_total_are_found_among_many_warehouses(tmp_path):
    units = sold(np.linspace(1.0, 9.0, 20))
    regions = np.stack([units[:, :8].sum(axis=1), units[:, 8:].sum(axis=1), units.sum(axis=1)], axis=1)
    names = (*(f"store {i}" for i in range(20)), "north", "south", "Germany")
    message = refusal(tmp_path, np.hstack([units, regions]), names=names)
    assert all(f"'{name}' is the sum of" in message for name in ("north", "south", "Germany"))


def test_a_name_of_a_sum_is_told_and_equal_or_slow_warehouses_are_none(tmp_path):
    assert "'Total' is counted as a warehouse" in cautions(read(tmp_path, sold(), names=("a", "b", "Total")))
    units = np.random.default_rng(0).poisson(0.1, (DAYS, 12))
    units[0] = 1
    assert cautions(read(tmp_path, units)) == ""
    same = np.repeat(sold((3.0,)), 3, axis=1)
    assert cautions(read(tmp_path, same)) == ""


# --- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", ["2042-04-01", "2025-04-29", "2024-09-29", "2023-04-29", "1999-01-01"])
def test_a_date_far_from_the_rest_is_refused_with_its_line(tmp_path, day):
    message = refusal(tmp_path, sold(), more=[f"{day},b,5"])
    assert "line 362: correct the dates far from the rest" in message


@pytest.mark.parametrize(("days", "refused"), [(60, True), (20, True), (4, False)])
@pytest.mark.parametrize("sparse", [False, True])
def test_zeros_padded_at_the_end_are_refused_or_told(tmp_path, days, refused, sparse):
    units = np.random.default_rng(0).poisson(0.6, (DAYS, 3)) if sparse else sold()
    units[[0, -days - 1]] = 1
    units[-days:] = 0
    listed = units > 0
    listed[-days:] = True
    if refused:
        assert "nothing is sold in the last" in (message := refusal(tmp_path, units, listed=listed))
        assert "since 2024-0" in message and "(lines " in message
    else:
        assert "nothing is sold in the last 4 days" in cautions(read(tmp_path, units, listed=listed))


def test_some_warehouses_padded_and_others_not_are_told_or_refused_with_names(tmp_path):
    units = sold()
    units[-20:, 2] = 0
    assert "nothing is sold by 'c' after 2024-04-09" in cautions(read(tmp_path, units))
    units[-20:, 0] = 0
    assert "nothing is sold by 'a' after 2024-04-09, 'c' after 2024-04-09" in refusal(tmp_path, units)


@pytest.mark.parametrize(
    "zone",
    ["Europe/Berlin", "Europe/London", "Asia/Kolkata", "Australia/Sydney", "Pacific/Auckland", "America/New_York"],
)
@pytest.mark.parametrize("written", ["%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%d %H:%M:%S+00:00"])
def test_local_midnights_in_utc_are_read_as_local_dates_and_told(tmp_path, zone, written):
    def stamp(day: date) -> str:
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(timezone.utc).strftime(written)

    units = sold()
    sales = read(tmp_path, units, stamp=stamp)
    assert sales.first == FIRST and "in UTC, which is a local midnight" in cautions(sales)
    np.testing.assert_array_equal(sales.units, units)


def test_times_of_sales_and_stamps_at_a_late_hour_without_a_zone_keep_their_dates(tmp_path):
    assert read(tmp_path, sold(), stamp=lambda day: f"{day} 23:00:00").first == FIRST
    assert "a local midnight in UTC would be of the next day" in cautions(load_sales(tmp_path / "sales.csv"))
    hours = read(tmp_path, sold(), stamp=lambda day: f"{day}T{day.day % 24:02d}:30:00Z")
    assert hours.first == FIRST and cautions(hours) == ""


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("far", "told"), [(900, True), (60_000, True), (20, False)])
def test_a_number_far_above_the_others_of_its_warehouse_is_told_with_its_line(tmp_path, far, told):
    units = sold((5000.0, 5.0, 3.0))
    units[50, 1] = far
    assert ("far above all others in line 153" in cautions(read(tmp_path, units))) == told


def test_returns_are_taken_off_the_sales_of_their_day(tmp_path):
    units = np.maximum(sold(), 2)
    sales = read(tmp_path, units, more=["2024-01-05,a,-1", "2024-01-07,b,-2"])
    assert sales.units[4, 0] == units[4, 0] - 1 and sales.units[6, 1] == units[6, 1] - 2
    assert any("2 rows of negative units (line 362, 363) taken off" in note for note in sales.notes)
    units[20, 2] = -3
    sales = read(tmp_path, units)
    assert sales.units[20, 2] == 0 and "more is returned than sold on a day (line 64): 3 units lost" in cautions(sales)


# --- files of another form --------------------------------------------------------------------------------------------


def mended(message: str, path) -> object:
    """What the two lines of a refusal make of the file."""
    exec("\n".join(line.strip() for line in message.splitlines() if line.startswith("  ")), {})
    return load_sales(path.with_name("sales_mended.csv"))


def dates(form: str) -> list[str]:
    return [(FIRST + timedelta(days=p)).strftime(form) for p in range(DAYS)]


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "d_%j"])
@pytest.mark.parametrize("first", ["warehouse", "Store"])
def test_a_column_a_day_is_refused_with_the_lines_that_make_rows_of_it(tmp_path, form, first):
    units = sold()
    days = dates(form) if form != "d_%j" else [f"d_{p + 1}" for p in range(DAYS)]
    lines = [",".join([first, *days]), *(",".join(["abc"[i], *map(str, units[:, i])]) for i in range(3))]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="a column a day was found") as error:
        load_sales(path)
    np.testing.assert_array_equal(mended(str(error.value), path).units, units)


@pytest.mark.parametrize("column", ["date", "Day"])
def test_a_column_a_warehouse_is_refused_with_the_lines_that_make_rows_of_it(tmp_path, column):
    units = sold()
    rows = [f"{day},{','.join(map(str, row))}" for day, row in zip(dates("%Y-%m-%d"), units, strict=True)]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join([f"{column},Store 1,Store 2,berlin", *rows]))
    with pytest.raises(ValueError, match="a column a warehouse was found .'Store 1', 'Store 2', 'berlin'.") as error:
        load_sales(path)
    np.testing.assert_array_equal(mended(str(error.value), path).units, units)


@pytest.mark.parametrize("column", ["item", "SKU", "product_id", "Article No", "StockCode", "family"])
def test_several_items_are_refused_with_the_lines_that_keep_one(tmp_path, column):
    units = sold()
    rows = [
        f"{day},{name},{u},{item}"
        for k, item in enumerate(("007", "8"))
        for day, row in zip(dates("%Y-%m-%d"), units, strict=True)
        for name, u in zip("abc", row + 10 * k, strict=True)
    ]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join([f"Date,warehouse,units,{column}", *rows]))
    with pytest.raises(ValueError, match=f"{column} has 2 items .'007', '8'., and one is planned at a time") as error:
        load_sales(path)
    sales = mended(str(error.value), path)
    np.testing.assert_array_equal(sales.units, units)
    assert any(f"ignored columns: {column}" in note for note in sales.notes)


def test_a_file_of_other_columns_is_not_taken_for_a_wide_one(tmp_path):
    (tmp_path / "sales.csv").write_text("day,store_nbr,qty\n2024-01-01,1,5\n2024-01-02,1,5\n")
    with pytest.raises(ValueError, match="date, warehouse, units cannot be found"):
        load_sales(tmp_path / "sales.csv")
