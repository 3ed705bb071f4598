"""One look at a user's file: what would be read wrongly without a word is refused, or told as a caution."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest

from banking.data import full_report
from banking.records import load_log
from retail import train
from retail.records import load_sales


def sales(**changes) -> list[str]:
    """Lines of 90 days of two warehouses; changes: line number (as line5=...) -> text."""
    units = np.random.default_rng(0).integers(1, 9, (90, 2))
    days = [date(2024, 1, 1) + timedelta(days=p) for p in range(90)]
    rows = [
        f"{day},{name},{u}" for day, row in zip(days, units, strict=True) for name, u in zip("ab", row, strict=True)
    ]
    lines = ["date,warehouse,units", *rows]
    for line, text in changes.items():
        lines[int(line.removeprefix("line")) - 1] = text
    return lines


def payments(header: str = "timestamp,router,amount", more=lambda i: "", router=lambda i: "ab"[i % 2]) -> list[str]:
    start = datetime(2024, 3, 4, 8)
    rows = [f"{start + timedelta(seconds=300 * i)},{router(i)},{5 + i % 7}{more(i)}" for i in range(4000)]
    return [header, *rows]


def load(folder, lines, reader):
    path = folder / "file.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return reader(path)


TOTALS = [
    f"{line.split(',')[0]},Total,{sum(int(x.split(',')[2]) for x in sales() if x[:10] == line[:10])}"
    for line in sales()[1::2]
]
REFUSED = {
    "a name in capitals": (sales(line9="2024-01-04,B,5"), "'b' (line 3) and 'B' (line 9), the same name"),
    "blanks within a name": (sales(line9="2024-01-04,b 1,5", line11="2024-01-05,b  1,5"), "the same name"),
    "thousands points": ([line.replace(",5", ",1.234") for line in sales()], "a thousand, or one and a part"),
    "one thousands point among whole numbers": (sales(line9="2024-01-04,b,1.234"), "'1.234' (line 9): a thousand, or"),
    "a thousands comma": (sales(line9='2024-01-04,b,"1,234"'), "line 9: units is '1,234': a mark of thousands?"),
    "two thousands points": (sales(line9="2024-01-04,b,1.234.567"), "'1.234.567': a mark of thousands?"),
    "a thousands blank": (sales(line9="2024-01-04,b,1\u202f234"), "a mark of thousands?"),
    "a thousands apostrophe": (sales(line9="2024-01-04,b,1'234"), "a mark of thousands?"),
    "a number out of this world": (
        sales(line9="2024-01-04,b,1e300"),
        "line 9: units is '1e300', more than anybody has",
    ),
    "a decimal comma": (sales(line9='2024-01-04,b,"1,5"'), "line 9: units is '1,5', no number"),
    "a stray quote in a name": (sales(line9='2024-01-04,"b,5', line10='2024-01-05,a",5'), "line 9: a quote opens here"),
    "a stray quote in a number": (sales(line9='2024-01-04,b,"5', line11='2024-01-06,a,5"'), "line 9: a quote opens"),
    "a stray quote that never closes": (sales(line9='2024-01-04,"b,5'), "line 9: a quote opens here"),
    "a stray quote in another column": (
        [line + ',"x' * (k == 8) + ',x"' * (k == 9) + ",x" * (k not in (8, 9)) for k, line in enumerate(sales())],
        "line 9: a quote opens here",
    ),
    "a header in line 3 with other separators": (
        ["Report | Sales 2024", "", *(line.replace(",", ";") for line in sales())],
        "the first line is no header: line 3 is; the columns are separated by ';'",
    ),
    "a title with a bar": (["Report | Sales 2024", *sales()], "the first line is no header: line 2 is; save"),
    "tabs": ([line.replace(",", "\t") for line in sales()], "the columns are separated by '\\t'"),
    "sums as a place": ([*sales(), *TOTALS], "'Total' is the sum of the others"),
    "a corrected total": ([*sales(), "2024-01-04,b,77"], "another total of the same date and warehouse"),
    "a date far from the rest": (sales(line181="2042-01-04,b,5"), "correct the dates far from the rest"),
    "zeros padded on": (
        [*sales()[:120], *(line.rsplit(",", 1)[0] + ",0" for line in sales()[120:])],
        "almost nothing happens in the test part",
    ),
}


@pytest.mark.parametrize(
    "other",
    ["B", '""b""', "b.", "ｂ", "b\u200b", "007", "7.0", "Malmo\u0308 1", "MALMÖ_1", "malmö-01", "NULL", "nan", "N/A"],
)
def test_a_name_written_in_two_ways_and_a_name_that_is_none_are_refused(tmp_path, other):
    names = {"0": "7", "7": "7", "M": "Malmö 1", "m": "Malmö 1"}
    lines = [line.replace(",b,", f",{names.get(other[0], 'b')},") for line in sales()]
    lines[8] = f"2024-01-04,{other},5"
    found = "line 9: warehouse is" if other[0].upper() == "N" else "(line 9), the same name written differently"
    with pytest.raises(ValueError, match="file.csv") as refusal:
        load(tmp_path, lines, load_sales)
    assert found in str(refusal.value)


@pytest.mark.parametrize("name", list(REFUSED))
def test_sales_that_would_be_read_wrongly_are_refused(tmp_path, name):
    lines, found = REFUSED[name]
    with pytest.raises(ValueError, match="file.csv") as refusal:
        load(tmp_path, lines, load_sales)
    assert found in str(refusal.value)


def log(rate: float, sizes=(1, 1, 2, 3), seed: int = 0) -> list[str]:
    """Lines of single sales in 90 days of two warehouses: about `rate` a day and warehouse."""
    rng = np.random.default_rng(seed)
    days = [date(2024, 1, 1) + timedelta(days=p) for p in range(90)]
    rows = [f"{day},{name},{rng.choice(sizes)}" for day in days for name in "ab" for _ in range(rng.poisson(rate))]
    return ["date,warehouse,units", "2024-01-01,a,1", *rows, "2024-03-30,b,1"]


def between(lines: list[str], first: str, last: str) -> list[str]:
    return [line for line in lines[1:] if first <= line[:10] <= last]


def overlapping(lines: list[str]) -> list[str]:
    """Two exports one after the other, a week of which both have."""
    two = (between(lines, "2024-01-01", "2024-02-07"), between(lines, "2024-02-01", "2024-12-31"))
    return [lines[0], *two[0], *two[1]]


def ordered(lines: list[str]) -> list[str]:
    return [lines[0], *sorted(lines[1:])]


def shuffled(lines: list[str]) -> list[str]:
    return [lines[0], *np.random.default_rng(0).permutation(lines[1:]).tolist()]


SINGLE = {
    "totals": sales(),
    "sales": log(3.0),
    "many sales": log(20.0),
    "sales of one unit": log(0.5, sizes=(1,)),
    "a sale of one unit more": [line.rsplit(",", 1)[0] + ",1" for line in (*sales(), sales()[5])],
    "the tills of two": [*log(2.0), *log(2.0, seed=1)[1:]],
    "hours": [line.replace(",", f" {8 + k % 12:02d}:00:00,", 1) if k else line for k, line in enumerate(log(2.0))],
}
SINGLE["a sale of one unit more"][0] = "date,warehouse,units"


def sold(lines: list[str]) -> float:
    return sum(float(line.rsplit(",", 1)[1]) for line in lines[1:])


@pytest.mark.parametrize("rows", list(SINGLE))
@pytest.mark.parametrize("order", [list, ordered, shuffled])
def test_a_list_of_sales_is_added_up_and_a_file_that_is_there_many_times_counts_once(tmp_path, rows, order):
    lines = SINGLE[rows]
    assert load(tmp_path, order(lines), load_sales).units.sum() == sold(lines)
    for times in (2, 3):
        many = load(tmp_path, order([*lines, *(times - 1) * lines[1:]]), load_sales)
        assert many.units.sum() == sold(lines)
        assert any(f"there {'twice' if times == 2 else '3 times'}" in note and "line" in note for note in many.notes)


@pytest.mark.parametrize("rows", ["totals", "sales", "many sales"])
def test_exports_that_overlap_count_once(tmp_path, rows):
    lines = SINGLE[rows]
    for twice in (
        overlapping(lines),
        [*lines, *between(lines, "2024-01-01", "2024-01-31")],
        [lines[0], *overlapping(lines)[:0:-1]],
    ):
        found = load(tmp_path, twice, load_sales)
        assert found.units.sum() == sold(lines)
        assert any("days are taken up again" in note and "dropped (lines" in note for note in found.notes)


def test_repeated_lines_of_totals_are_told_from_sales_by_their_units_whatever_their_order(tmp_path):
    for order in (ordered, shuffled):
        twice = load(tmp_path, order([*sales(), *sales()[1:60]]), load_sales)
        assert twice.units.sum() == sold(sales()) and any("59 repeated lines dropped" in note for note in twice.notes)


def test_receipts_that_are_there_twice_to_the_minute_and_number_count_once(tmp_path):
    hours = SINGLE["hours"]
    receipts = [f"{line},{k}" if k else f"{line},receipt" for k, line in enumerate(hours)]
    found = load(tmp_path, [*receipts, *receipts[5:9]], load_sales)
    assert found.units.sum() == sold(hours), found.notes
    assert any(
        "alike in every column, 4 repeated lines dropped" in note or "taken up again" in note for note in found.notes
    )


def corrected(share: float) -> list[str]:
    rows = np.random.default_rng(1).permutation(sales()[1:])[: int(180 * share)]
    return [f"{row.rsplit(',', 1)[0]},{1 + int(row.rsplit(',', 1)[1])}" for row in sorted(rows)]


MIXED = {
    "corrected totals": [*sales(), *corrected(0.3)],
    "most totals corrected": [*sales(), *corrected(0.9)],
    "all totals corrected": ordered([*sales(), *corrected(1.0)]),
    "corrected totals in order": ordered([*sales(), *corrected(0.5)]),
    "corrected totals in no order": shuffled([*sales(), *corrected(0.5)]),
    "an overlap with a day that was not over": [*sales()[:100], *corrected(1.0)[90:99], *sales()[100:]],
    "lists of sales that overlap but for a day": [
        sales()[0],
        *between(log(3.0), "", "2024-02-07"),
        *between(log(3.0), "2024-02-01", "Z")[4:],
    ],
    "few sales, some of them alike": log(0.2, sizes=(1, 1, 1, 2)),
}


@pytest.mark.parametrize("name", list(MIXED))
def test_rows_of_one_day_that_may_be_corrections_or_sales_are_refused_with_lines_and_a_way_on(tmp_path, name):
    with pytest.raises(ValueError, match=r"file.csv.* line") as refusal:
        load(tmp_path, MIXED[name], load_sales)
    assert "keep the one that holds" in str(refusal.value) or "leave out the lines of one" in str(refusal.value)


@pytest.mark.parametrize(("keep", "added"), [(True, 180), (False, 0)])
def test_the_lines_of_a_refusal_turn_the_file_into_what_is_wanted(tmp_path, keep, added):
    with pytest.raises(ValueError) as refusal:
        load(tmp_path, MIXED["all totals corrected"], load_sales)
    first, last, summed = [
        line.strip() for line in str(refusal.value).splitlines() if "table" in line or "groupby" in line
    ]
    exec(first + "\n" + last if keep else first.split(".drop")[0] + summed.split(": ")[1] + "\n" + last)
    mended = load_sales(tmp_path / "file_mended.csv").units.sum()
    assert mended == sold(sales()) + 180 if keep else mended == 2 * sold(sales()) + 180


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (sales(line9="2024-01-04,b,60000"), "far above all others in line 9"),
        (
            [line.replace(",", "T23:00:00.000Z,", 1) if line[0] == "2" else line for line in sales()],
            "read as the next day's",
        ),
    ],
)
def test_sales_that_may_be_a_mistake_are_told(tmp_path, lines, found):
    assert any(note.startswith("CAUTION") and found in note for note in load(tmp_path, lines, load_sales).notes)


# --- payments ---------------------------------------------------------------------------------------------------------

SETTLED = "timestamp,router,amount,channel,settled_at"


def when(line: str) -> datetime:
    return datetime.fromisoformat(line.split(",")[0])


def at(change, lines=None) -> list[str]:
    """Payments with every time changed: `change` makes a text of a datetime and the number of the row."""
    lines = payments() if lines is None else lines
    return [lines[0], *(f"{change(when(line), i)},{line.split(',', 1)[1]}" for i, line in enumerate(lines[1:]))]


def settled(change) -> list[str]:
    """Payments of two channels; `change` makes the time of settlement of the time sent and the number of the row."""
    lines = payments()
    rows = [f"{line},{'xy'[i % 3 == 0]},{change(when(line), i)}" for i, line in enumerate(lines[1:])]
    return [SETTLED, *rows]


def next_batch(sent: datetime, hours: int, late: int = 0) -> datetime:
    """The next multiple of `hours` of the day."""
    midnight = sent.replace(hour=0, minute=0, second=0)
    return midnight + timedelta(
        hours=(int((sent - midnight).total_seconds() // 3600) // hours + 1) * hours, seconds=late
    )


PAYMENTS = payments()[1:]
REFUSED_PAYMENTS = {
    "no time of day": (at(lambda t, i: t.date()), "no timestamp has a time of day"),
    "the time of day lost in some": (at(lambda t, i: t.date() if i % 9 == 0 else t), "445 timestamps without a time"),
    "midnight in some": (at(lambda t, i: t.replace(hour=0, minute=0) if i % 9 == 0 else t), "exactly (line 2, 11"),
    "noon alone": (at(lambda t, i: t.replace(hour=12, minute=0)), "the only times of day are 12:00:00"),
    "another router at the test": (payments(router=lambda i: "ab"[i % 2] if i < 3072 else "xy"[i % 2]), "begin on the"),
    "one router renamed at the test": (
        payments(router=lambda i: "abcd"[i % 4] if i < 3072 else "abce"[i % 4]),
        "router 'd' ends on 2024-03-14, where 'e' begins: renamed?",
    ),
    "a router in two compositions": (payments(router=lambda i: ("caf\u00e9", "cafe\u0301")[i % 2]), "the same name"),
    "a blank that does not break": (payments(router=lambda i: ("a 1", "a\u00a01")[i % 2]), "the same name"),
    "a number written in three ways": (payments(router=lambda i: ("7", "007", "7.0")[i % 3]), "the same name"),
    "a router of all others": (
        [*payments(), *(line.replace(",b,", ",a,").replace(",a,", ",All,") for line in PAYMENTS)],
        "'All' is the sum",
    ),
    "a total a day": (
        [
            *payments(),
            *(
                f"2024-03-{d:02} 23:59:59,Total,{sum(int(x.split(',')[2]) for x in PAYMENTS if x[8:10] == f'{d:02}')}"
                for d in range(4, 18)
            ),
        ],
        "'Total' is the sum",
    ),
    "thousands points of amounts": (
        [payments()[0], *(f"{x[:-1]}1.{i % 9}34" for i, x in enumerate(PAYMENTS))],
        "a thousand, or one",
    ),
    "a date far ahead": (
        [*payments(), "2042-01-04 08:00:00,b,5", "2042-01-05 08:00:00,b,5"],
        "far from the rest: line 4002, 4003",
    ),
    "an old date": ([*payments(), "1970-01-01 00:00:01,b,5"], "far from the rest: line 4002"),
    "the same payments with other numbers": (
        ["timestamp,router,amount,id", *(f"{x},{i}" for i, x in enumerate(PAYMENTS + PAYMENTS[1000:1100]))],
        "100 payments (line 4002 to 4101) are there already",
    ),
    "a router renamed on a later test day": (
        payments(router=lambda i: "abcd"[i % 4] if i < 3500 else "abce"[i % 4]),
        "router 'd' ends on 2024-03-16, where 'e' begins: renamed?",
    ),
    "both sides of an account": (
        [payments()[0], *(x.replace(",a,", ",b,") for x in PAYMENTS), *(x.replace(",b,", ",a,") for x in PAYMENTS)],
        "'a', 'b' list the same payments",
    ),
    "no header": (PAYMENTS, "the first line is no header"),
    "seconds since 1970": (at(lambda t, i: int(t.timestamp())), "in seconds since 1970"),
    "milliseconds since 1970": (at(lambda t, i: 1000 * int(t.timestamp())), 'pd.to_datetime(t.timestamp, unit="ms")'),
    "the day first": (at(lambda t, i: f"{t:%d/%m/%Y %H:%M:%S}"), "with the day first"),
    "the month first": (at(lambda t, i: f"{t.month}/{t.day}/{t:%Y %H:%M}"), "with the month first"),
    "the day first, or the month": (
        at(lambda t, i: f"{t:%d/%m/%Y %H:%M}")[:1000],
        "with the day first, or the month: make sure which",
    ),
    "a refund": ([*payments(), "2024-03-17 20:00:00,b,-5"], "line 4002: amount is '-5', negative"),
    "a sign of a currency": ([*payments(), "2024-03-17 20:00:00,b,€5"], "line 4002: amount is '€5', no number"),
    "settled on a date": (settled(lambda t, i: (t + timedelta(days=1)).date()), "as where payments settle in batches"),
}


@pytest.mark.parametrize("name", list(REFUSED_PAYMENTS))
def test_payments_that_would_be_read_wrongly_are_refused(tmp_path, name):
    lines, found = REFUSED_PAYMENTS[name]
    with pytest.raises(ValueError, match="file.csv") as refusal:
        load(tmp_path, lines, load_log)
    assert found in str(refusal.value)


def told(column: str, values) -> list[str]:
    return [f"timestamp,router,amount,{column}", *(f"{x},{values[i % len(values)]}" for i, x in enumerate(PAYMENTS))]


BATCHED = "settle together, in batches: routing changes no time"
TOLD = {
    "two currencies": (told("currency", ("USD", "USD", "INR")), "currencies (currency: USD 2,667, INR 1,333)"),
    "two currencies under another name": (told("CCY", ("USD", "usd", "EUR")), "(ccy: USD 2,667, EUR 1,333)"),
    "failed": (told("status", ("ok", "ok", "FAILED", "Declined")), "2,000 payments of 4,000 did not go through"),
    "a state": (told("state", ("settled", "Timed out", "settled", "settled")), "(state: Timed out 1,000)"),
    "success 0": (told("success", (1, 1, 1, 0)), "(success: 0 1,000)"),
    "failed 1": (told("is_failed", ("no", "no", "no", "yes")), "(is_failed: yes 1,000)"),
    "codes of responses": (told("response_code", ("00", "00", "05", "00")), "(response_code: 05 1,000)"),
    "a reason": (told("Decline Reason", ("", "", "", "limit")), "(decline reason: limit 1,000)"),
    "another kind of row": (told("type", ("payment", "payment", "payment", "Refund")), "(type: Refund 1,000)"),
    "unknown words": (told("txn-status", ("S", "S", "F")), "txn-status has S 2,667, F 1,333: all count as payments"),
    "errors": (told("error", ("", "", "", "E17")), "(error: E17 1,000)"),
    "an amount out of all proportion": (
        [*payments(), "2024-03-17 20:00:00,b,5000000"],
        "far above all others in line 4002",
    ),
    "settled out of all proportion": (
        settled(lambda t, i: t + timedelta(seconds=60 + 7 * i % 100, days=6000 * (i == 1000))),
        "the time to settlement is far above all others in line 1002",
    ),
    "nightly batches": (settled(lambda t, i: next_batch(t, 24, 9 * 3600)), "all payments " + BATCHED),
    "batches four times a day": (settled(lambda t, i: next_batch(t, 6, 300)), "all payments " + BATCHED),
    "batches every hour": (settled(lambda t, i: next_batch(t, 1, i % 4)), "all payments " + BATCHED),
    "batches of a channel": (
        settled(lambda t, i: next_batch(t, 24) if i % 3 == 0 else t + timedelta(seconds=60 + 7 * i % 100)),
        "those of channel 'y' " + BATCHED,
    ),
    "batches of a router": (
        settled(lambda t, i: next_batch(t, 24) if i % 2 else t + timedelta(seconds=60 + 7 * i % 100)),
        "those of router 'b' " + BATCHED,
    ),
    "settled a day later, each": (settled(lambda t, i: t + timedelta(days=1)), "no queue was ever seen at y, x"),
    "settlements in whole hours": (settled(lambda t, i: t.replace(minute=0) + timedelta(hours=1)), BATCHED),
    "whole hours": (at(lambda t, i: t.replace(minute=0)), "timestamps are whole hours: spread evenly"),
    "whole minutes in some": (
        at(lambda t, i: t if i % 5 == 0 else t + timedelta(seconds=i % 59 + 1)),
        "800 timestamps are in steps of 5 min, others finer: spread",
    ),
    "a router that falls silent": (
        payments(router=lambda i: "abc"[i % 3] if i < 2000 else "ab"[i % 2]),
        "router 'c' has nothing",
    ),
    "a router renamed": (
        payments(router=lambda i: "abc"[i % 3] if i < 2000 else "abd"[i % 3]),
        "router 'c' ends on 2024-03-11, where 'd' begins: renamed?",
    ),
    "an hour twice": (
        at(lambda t, i: t - timedelta(hours=1) if i >= 1000 else t),
        "from line 1002 on an hour is there twice",
    ),
    "more equal lines than chance makes": (
        [payments()[0], *(x for i, x in enumerate(PAYMENTS) for _ in range(1 + (i % 97 == 0)))],
        "42 repeated lines kept: payments of one second may be alike",
    ),
    "quiet test days": ([payments()[0], *PAYMENTS[:3072], *PAYMENTS[3072::4]], "the test days, since"),
}


@pytest.mark.parametrize("name", list(TOLD))
def test_payments_that_need_care_are_told_first(tmp_path, name):
    lines, found = TOLD[name]
    notes = load(tmp_path, lines, load_log).notes
    cautions = [note for note in notes if note.startswith("CAUTION")]
    assert any(found in note for note in cautions), notes
    assert list(notes[: len(cautions)]) == cautions, "before what is only to be known"


def test_batches_are_no_queue_even_where_the_means_agree(tmp_path):
    load(tmp_path, settled(lambda t, i: next_batch(t, 24, 9 * 3600)), load_log)
    report = full_report(tmp_path / "file.csv")
    assert (
        "no queue settles in batches, do not rely on the results" in report
        and "describe your channels well" not in report
    )


@pytest.mark.parametrize(
    ("copies", "lines"),
    [
        (PAYMENTS * 2, "4002 to 8001"),
        (PAYMENTS * 3, "4002 to 12001"),
        (PAYMENTS * 4, "4002 to 16001"),
        (PAYMENTS + PAYMENTS[:1333], "4002 to 5334"),
        (PAYMENTS[:2000] + PAYMENTS[1988:], "2002 to 2013"),
        (sorted(PAYMENTS + PAYMENTS[1000:2000]), "1003"),
        ([line for line in PAYMENTS for _ in "ab"], "3, 5, 7"),
        (sorted(PAYMENTS + PAYMENTS[::3]), "3, 7, 11"),
    ],
)
def test_exports_that_overlap_count_once_and_their_lines_are_told(tmp_path, copies, lines):
    log = load(tmp_path, [payments()[0], *copies], load_log)
    assert len(log.seconds) == len(PAYMENTS)
    assert any("an export is there again" in note and f"(line {lines}" in note for note in log.notes), log.notes


def test_the_equal_payments_of_a_payroll_all_count(tmp_path):
    payroll = [f"2024-03-{d:02} 10:00:00,a,{d}.5" for d in range(5, 18) for _ in range(50 + d)]
    log = load(tmp_path, [payments()[0], *PAYMENTS, *payroll], load_log)
    assert len(log.seconds) == len(PAYMENTS) + len(payroll)


def test_equal_payments_of_one_second_count_as_many_as_they_are(tmp_path):
    fares = [line.rsplit(",", 1)[0] + ",2.75" for line in PAYMENTS]
    pairs = [line for i, line in enumerate(fares) for _ in range(1 + (i * i % 7 == 1))]
    log = load(tmp_path, [payments()[0], *pairs], load_log)
    assert len(log.seconds) == len(pairs) > 1.2 * len(fares)
    assert any("kept: payments of one second may be alike" in note for note in log.notes)
    for column, count in (("city", len(pairs)), ("transaction_id", len(fares))):  # only an id tells them apart
        lines = [f"{payments()[0]},{column}", *(f"{line},x" for line in pairs)]
        assert len(load(tmp_path, lines, load_log).seconds) == count


def test_payments_of_few_amounts_in_whole_minutes_are_alike_by_chance(tmp_path):
    rng = np.random.default_rng(0)
    minutes = np.sort(rng.integers(0, 4 * 1440, 9000)).tolist()
    rows = [f"{datetime(2024, 3, 4) + timedelta(minutes=m)},{'ab'[rng.integers(2)]},2.75" for m in minutes]
    assert len(load(tmp_path, [payments()[0], *rows], load_log).seconds) == len(rows)
    assert len(load(tmp_path, [payments()[0], *rows, *rows], load_log).seconds) == len(rows)


def test_success_alone_and_one_currency_are_not_cautioned_of(tmp_path):
    lines = ["timestamp,router,amount,status,currency", *(f"{x},Completed,USD" for x in PAYMENTS)]
    assert not [note for note in load(tmp_path, lines, load_log).notes if note.startswith("CAUTION")]


# --- beside the result ------------------------------------------------------------------------------------------------


def test_a_caution_stands_beside_the_result(tmp_path, capsys):
    load(tmp_path, sales(line9="2024-01-04,b,60000"), load_sales)
    flags = ["--data", str(tmp_path / "file.csv"), "--episodes", "2", "--eval-episodes", "2", "--eval-every", "0"]
    assert train.main([*flags, "--no-plots", "--out", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out.split("Everybody is judged")[1]
    assert "CAUTION: units is far above all others in line 9" in told
