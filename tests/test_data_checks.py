"""One look at a user's file: what would be read wrongly without a word is refused, or told as a caution."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest

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
    ["B", "ｂ", "b\u200b", "007", "7.0", "Malmo\u0308 1", "MALMÖ_1", "malmö-01", "NULL", "nan", "N/A"],
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


def test_an_export_that_is_there_twice_counts_once_and_two_sales_of_one_unit_count_twice(tmp_path):
    twice = load(tmp_path, [*sales(), *sales()[1:]], load_sales)
    assert twice.units.sum() == load(tmp_path, sales(), load_sales).units.sum()
    assert any("the whole file is there twice" in note for note in twice.notes)
    ones = [line.rsplit(",", 1)[0] + ",1" for line in sales()]
    single = load(tmp_path, ["date,warehouse,units", *ones[1:], ones[5]], load_sales)
    assert single.units.sum() == 181


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (sales(line9="2024-01-04,b,60000"), "far above all others in line 9"),
        ([line.replace(",", "T23:00:00.000Z,", 1) if line[0] == "2" else line for line in sales()], "one day early"),
    ],
)
def test_sales_that_may_be_a_mistake_are_told(tmp_path, lines, found):
    assert any(note.startswith("CAUTION") and found in note for note in load(tmp_path, lines, load_sales).notes)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([line[:10] + line[19:] if line[0] == "2" else line for line in payments()], "no timestamp has a time of day"),
        (payments(router=lambda i: "ab"[i % 2] if i < 3072 else "xy"[i % 2]), "begin on the test days"),
    ],
)
def test_payments_that_would_be_read_wrongly_are_refused(tmp_path, lines, found):
    with pytest.raises(ValueError, match="file.csv") as refusal:
        load(tmp_path, lines, load_log)
    assert found in str(refusal.value)


def nightly(i: int) -> str:
    return f",{'xy'[i % 3 == 0]},{datetime(2024, 3, 5, 9) + timedelta(days=300 * i // 86400)}"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            payments("timestamp,router,amount,currency", lambda i: ",USD" if i % 2 else ",INR"),
            "bring them to one currency",
        ),
        (payments("timestamp,router,amount,status", lambda i: ",ok" if i % 9 else ",FAILED"), "445 payments of status"),
        (payments("timestamp,router,amount,channel,settled_at", nightly), "in batches"),
    ],
)
def test_payments_that_need_care_are_told(tmp_path, lines, found):
    assert any(note.startswith("CAUTION") and found in note for note in load(tmp_path, lines, load_log).notes)


def test_a_caution_stands_beside_the_result(tmp_path, capsys):
    load(tmp_path, sales(line9="2024-01-04,b,60000"), load_sales)
    flags = ["--data", str(tmp_path / "file.csv"), "--episodes", "2", "--eval-episodes", "2", "--eval-every", "0"]
    assert train.main([*flags, "--no-plots", "--out", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out.split("Everybody is judged")[1]
    assert "CAUTION: units is far above all others in line 9" in told
