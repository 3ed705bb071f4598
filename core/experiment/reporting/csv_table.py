"""A user's CSV file, read so that whatever cannot be used is told with its line number, many lines at once.

Both problems read recorded data with this: `read_csv`, then one `numbers`, `times`, ... a column, each of which notes
what is wrong in a `Complaints`, and at the end `Complaints.refuse`.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.team.files import require_regular

SHOWN = 10  # bad lines told in full
HEAD = 50  # lines looked through for a header that is not the first
REMEMBERED = 500_000  # texts of a column that are looked up; an older one that comes again is met later
LARGEST = 1e15  # a number above is a typing error, and its square may be infinite
SLICE = 500_000  # texts taken apart at once: each becomes several while it is
YEARS = (1970, 2100)  # a year outside is a typing error
TIME = (
    r"^(\d{4}-\d{2}-\d{2})"  # date
    r"(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?))?"  # time of day
    r" ?(Z|UTC|[+-]\d{2}(?::?\d{2})?)?$"  # time zone
)
PLAIN_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?"
NO_ZONE = "no time zone"

# In the place of a name these say that there is none, as pandas, R, SQL and spreadsheets write it.
NO_NAME = set("null nan none n/a na n.a. #n/a #na nil nat <na> <null> (null) (blank) undefined - -- ?".split())
THOUSANDS = r"[+-]?\d{1,3}(?:[ .,'’\u00a0\u2009\u202f]\d{3})+(?:[.,]\d*)?"  # 1,234 or 1.234.567,8 or 1 234


@dataclass
class Complaints:
    """What is wrong in a file, by line."""

    path: str | Path
    found: dict[int, str] = field(default_factory=dict)  # line -> the first thing wrong with it, of those to be shown
    lines: list[np.ndarray] = field(default_factory=list)  # all of them

    def add(self, lines: Any, values: Any, text: str) -> None:
        """Note `text` for these ascending lines; {!r} in it becomes the line's value."""
        self.lines.append(np.asarray(lines, int))
        for line, value in zip(lines[:SHOWN], values[:SHOWN], strict=True):
            self.found.setdefault(int(line), text.format(value))

    def refuse(self) -> None:
        """Raise a ValueError that lists the bad lines, if there are any."""
        if not self.found:
            return
        lines = np.unique(np.concatenate(self.lines))
        shown = [f"  line {line}: {self.found[line]}" for line in lines[:SHOWN]]
        more = [f"  ... and {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
        head = f"{self.path}: {counted(len(lines), 'line')} cannot be used:"
        raise ValueError("\n".join([head, *shown, *more, "correct these lines, or leave them out"]))


@dataclass
class Table:
    """The columns of a CSV file as text, without the blanks around it. `lines[k]` is where row k ends in the file."""

    path: Path
    columns: dict[str, Any]  # name -> categorical pandas Series of str: millions of rows hold few different texts
    lines: np.ndarray  # (rows,)
    ignored: list[str]  # columns that nobody asked for
    blank: int  # empty lines that were skipped
    repeats: np.ndarray  # (rows,) bool: the same text in every column as an earlier row
    written: dict[str, str] = field(default_factory=dict)  # name -> as the header has it

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, rows: np.ndarray) -> Table:
        """These rows (bool) alone."""
        columns = {name: values[rows].reset_index(drop=True) for name, values in self.columns.items()}
        return Table(self.path, columns, self.lines[rows], self.ignored, self.blank, self.repeats[rows], self.written)


class _Distinct(dict):
    """Text -> its number. `texts`: in the order of the numbers; a text that comes again late may have several."""

    def __init__(self):
        self.texts: list[str] = []

    def __missing__(self, text: str) -> int:
        if len(self) == REMEMBERED:  # as in a column that is different in every line
            self.clear()
        self[text] = number = len(self.texts)
        self.texts.append(text)
        return number


def read_csv(path: str | Path, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """The named columns of a CSV file with a header, in any order; others are ignored.

    Raises FileNotFoundError, or ValueError for what is no such file: empty, no text, another separator, a column that
    is missing or there twice, rows of other lengths than the header, quotes that swallow lines.
    """
    import pandas as pd

    path = Path(path)
    if path.exists() and not path.is_dir():
        require_regular(path)
    _require_text(path)
    wanted, complaints = [*required, *optional], Complaints(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            places = _places(path, header, required, wanted)
            texts, codes = [_Distinct() for _ in places], [array("i") for _ in places]
            filling = list(zip(codes, texts, places.values(), strict=True))
            lines, keys, blank, last = array("q"), array("q"), 0, rows.line_num
            for row in rows:
                begins, last = last + 1, rows.line_num
                whole = "\0".join(row)
                if not whole.strip("\0 \t"):
                    blank += 1
                    continue
                if last > begins and (opens := _stray_quote(row, begins, len(header), places.values())):
                    found = f"a quote opens here and swallows lines up to {last}: close it, or leave it out"
                    complaints.add([opens], [""], found)
                    continue
                if len(row) != len(header):
                    need = f"{{}} fields, the header has {len(header)}: look for a missing comma or quote"
                    found = f"{need}, or one too many (a decimal comma, a comma of thousands?)"
                    complaints.add([last], [len(row)], found)
                    continue
                for numbers, known, place in filling:
                    numbers.append(known[row[place]])
                lines.append(last)
                keys.append(hash(whole))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not text in UTF-8 ({error}); save it again as 'CSV UTF-8'") from None
        except csv.Error as error:
            raise ValueError(f"{path}: line {rows.line_num}: not CSV ({error}); export it as CSV again") from None
    complaints.refuse()
    if not lines:
        raise ValueError(f"{path}: no row was found under the header; give a row for every record")
    del filling
    columns = {name: _column(texts.pop(0).texts, codes.pop(0)) for name in places}  # one let go after the other
    ignored = [name.strip() for name in header if _plain(name) not in wanted]
    repeats = pd.Series(np.frombuffer(keys, np.int64)).duplicated().to_numpy()
    written = {name: header[place] for name, place in places.items()}
    return Table(path, columns, np.array(lines), ignored, blank, repeats, written)


def _column(texts: list[str], codes: array) -> Any:
    """Categorical Series of the texts without the blanks around them, of which several may be one."""
    import pandas as pd

    merged, plain = pd.factorize(pd.Index([text.strip() for text in texts], dtype=object))
    return pd.Series(pd.Categorical.from_codes(merged[np.frombuffer(codes, np.int32)], plain))


def _stray_quote(row: list[str], begins: int, width: int, places: Iterable[int]) -> int | None:
    """The line in which a quote opens by mistake, in a row of several lines: it swallows others of this file, or lies
    in a column that never has line breaks."""
    for place, text in enumerate(row):
        breaks = text.count("\n")
        swallowed = any(line.count(",") == width - 1 for line in text.split("\n")[1:])
        if breaks and (place in places or swallowed or len(row) != width):
            return begins
        begins += breaks
    return None


def write_new(path: str | Path, text: str) -> None:
    """Write a text file. Raises ValueError where another file is there: nothing of the user's is lost."""
    path, content = Path(path), text.encode("utf-8")
    if path.exists() and (path.is_dir() or path.read_bytes() != content):
        raise ValueError(f"{path} is there already; name a file that is not")
    path.write_bytes(content)


def constants_path(path: str | Path) -> Path:
    """FILE.constants.json, beside a user's FILE.csv: what the planner knows and the file cannot say."""
    return Path(path).with_suffix(".constants.json")


def files_of(path: str | Path) -> list[Path]:
    """The user's file and the constants beside it, those of the two that there are."""
    return [file for file in (Path(path), constants_path(path)) if file.is_file()]


def stamps(path: str | Path) -> tuple[tuple[int, int], ...]:
    """What changes when one of the `files_of` a user does: time and size of each."""
    return tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files_of(path))


def stated_constants(path: str | Path, fitted: Sequence[str], example: str) -> dict[str, Any]:
    """The JSON object in the `constants_path` of a user's file; {} where there is none.

    Raises:
        ValueError: it is no object (`example` shows one), or names a constant of `fitted`, which the data decide.
    """
    path = constants_path(path)
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # text of another kind, nesting without an end
        raise ValueError(f"{path}: not valid JSON ({error}); correct it, or remove the file") from None
    if not isinstance(known, dict):
        raise ValueError(f"{path}: found a {type(known).__name__}; write one object, {example}")
    for name in known:
        if name in fitted:
            raise ValueError(f"{path}: {name!r} comes from the data; leave it out")
    return known


def _require_text(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name a CSV file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the path of a CSV file")
    with open(path, "rb") as file:
        start = file.read(4096)
    if not start.strip():
        raise ValueError(f"{path}: the file is empty; give a header and rows")
    if start[:2] == b"PK" or start[:4] == b"\xd0\xcf\x11\xe0":
        raise ValueError(f"{path}: a workbook (or an archive) was found, not a CSV file; save the sheet as 'CSV UTF-8'")
    if b"\0" in start:
        raise ValueError(f"{path}: not a CSV file (binary, or text in UTF-16); save it as 'CSV UTF-8'")


def _plain(name: str) -> str:
    return name.strip().lower()


def header_names(path: Path) -> list[str]:
    """The columns that a file names once, as `Table.columns` does; [] where there are none: `read_csv` tells why."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            names = [_plain(name) for name in next(csv.reader(file), [])]
        except csv.Error:
            return []
    return [name for name in names if names.count(name) == 1]


def _places(path: Path, header: list[str], required: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Column name -> its place in the header."""
    names = [_plain(name) for name in header]
    found = ", ".join(map(repr, header[:20])) or "none"
    form = f"the first line must name {', '.join(required)}"
    missing = [name for name in required if name not in names]
    if missing and any(re.search(TIME, name) for name in names):
        raise ValueError(f"{path}: the first line is no header but has {found}; write one above it: {form}")
    if missing:
        _refuse_another_header(path, required, form)
        close = [
            f"{name!r} for {match[0]!r}" for name in missing if (match := difflib.get_close_matches(name, names, n=1))
        ]
        hint = f"; is {', '.join(close)} meant? rename it" if close else f"; {form}"
        one = "the column" if len(missing) == 1 else "the columns"
        raise ValueError(f"{path}: {one} {', '.join(missing)} cannot be found; the first line has {found}{hint}")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} is there {names.count(twice[0])} times; keep one of them")
    return {name: names.index(name) for name in wanted if name in names}


def _refuse_another_header(path: Path, required: Sequence[str], form: str) -> None:
    """Refuse a file whose header stands further down, or whose columns are not separated by commas."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line for _, line in zip(range(HEAD), file, strict=False)]
    for number, line in enumerate(lines, 1):
        for separator in ",;\t|":
            if set(required) <= {_plain(name.strip('"\n ')) for name in line.split(separator)}:
                above = "" if number == 1 else f"the first line is no header: line {number} is"
                apart = "" if separator == "," else f"the columns are separated by {separator!r}"
                step = f"sep={separator!r}, skiprows={number - 1}"
                step += ", decimal=','" if separator != "," and any(re.search(r"\d,\d", row) for row in lines) else ""
                found = "; ".join(filter(None, (above, apart)))
                raise ValueError(f"{path}: {found}; save the file with commas, the header first{in_pandas(path, step)}")
    for separator in ";\t|":
        if all(separator in line and "," not in line.replace(separator, "") for line in lines[:2]):
            raise ValueError(f"{path}: the columns are separated by {separator!r}; save the file with commas; {form}")


def in_pandas(path: str | Path, read: str = "", then: str = "") -> str:
    """The end of a message: two lines of Python that write a mended copy of a file beside it.

    read: further arguments of `pandas.read_csv`; then: what is done with the table, `.dropna()` for instance.
    """
    path = Path(path)
    mended = str(path.with_name(f"{path.stem}_mended.csv"))
    arguments = ", ".join(filter(None, (repr(str(path)), read)))
    return (
        ", for instance with\n"
        f"  import pandas as pd; table = pd.read_csv({arguments}){then}\n"
        f"  table.to_csv({mended!r}, index=False)"
    )


# --- columns ----------------------------------------------------------------------------------------------------------


def of_rows(text: Any, values: Any) -> np.ndarray:
    """Values of the distinct texts of a categorical column -> one a row."""
    return np.asarray(values)[text.cat.codes]


def texts(table: Table, column: str, complaints: Complaints) -> Any:
    """A column of names, pandas Series of str; empty ones are complained of, and those that say there is none."""
    values = table.columns[column]
    nothing = (values == "").to_numpy()
    complaints.add(table.lines[nothing], values[nothing], f"{column} is empty: write its name")
    none = of_rows(values, [name.casefold() in NO_NAME for name in values.cat.categories])
    complaints.add(table.lines[none], values[none], f"{column} is {{!r}}, which stands for no name: write its name")
    return values.astype(object)


def numbers(
    table: Table,
    column: str,
    complaints: Complaints,
    wanted: str,
    *,
    positive: bool = False,
    negative: bool = False,
    empty: bool = False,
) -> np.ndarray:
    """A column of finite numbers >= 0, (rows,) floats. `positive`: 0 is refused too; `negative`: those are allowed as
    well. `empty`: nothing is allowed, and becomes NaN."""
    import pandas as pd

    text = table.columns[column]
    distinct = pd.Series(text.cat.categories, dtype=object)
    values = pd.to_numeric(distinct, errors="coerce").to_numpy(dtype=float)
    nothing = (distinct == "").to_numpy()
    unreadable = ~np.isfinite(values)
    marked = unreadable & distinct.str.fullmatch(THOUSANDS).to_numpy(bool)
    plain = "write thousands without a mark, 1234, and parts with a point, 0.5"
    for which, what in (
        (nothing & (not empty), f"{column} is empty: {wanted}"),
        (marked, f"{column} is {{!r}}: a mark of thousands? {plain}"),
        (unreadable & ~nothing, f"{column} is {{!r}}, no number: {wanted}, in digits with a point for decimals"),
        (np.abs(values) > LARGEST, f"{column} is {{!r}}, more than anybody has: {wanted}"),
        ((values < 0) & (not negative), f"{column} is {{!r}}, negative: {wanted}"),
        ((values == 0) & positive, f"{column} is {{!r}}: {wanted}"),
    ):
        bad = of_rows(text, which)
        complaints.add(table.lines[bad], text[bad], what)
    return of_rows(text, values)


def booleans(table: Table, column: str, complaints: Complaints) -> np.ndarray:
    """A column of 0/1, true/false or yes/no, (rows,) bool."""
    text = table.columns[column]
    words = text.str.lower()
    yes = words.isin(["1", "true", "yes"]).to_numpy()
    bad = ~yes & ~words.isin(["0", "false", "no"]).to_numpy()
    complaints.add(table.lines[bad], text[bad], f"{column} is {{!r}}: write 0 or 1")
    return yes


def times(table: Table, names: Sequence[str], complaints: Complaints, empty: Sequence[str] = ()) -> list[Any]:
    """Columns of dates or times, all in one time zone (or all without) -> pandas Series of local times as written.

    Columns in `empty` may lack a time in some rows (NaT).
    """
    import pandas as pd

    parsed, zones, lines = [], [], []
    for name in names:
        text = table.columns[name]
        distinct, when, zone = _parsed(text.cat.categories)
        _refuse_other_forms(table.path, name, distinct[distinct != ""])
        nothing = (distinct == "") & (name in empty)
        wanted = "write YYYY-MM-DD, if needed with HH:MM:SS after it"
        strange = distinct.str.match(r"\d{4}-") & ~distinct.str[:4].between(*map(str, YEARS))
        bad = of_rows(text, when.isna() & ~nothing & ~strange)
        complaints.add(table.lines[bad], text[bad], f"{name} is {{!r}}, no date: {wanted}")
        odd = of_rows(text, strange)
        complaints.add(table.lines[odd], text[odd], f"{name} is {{!r}}: its year is not from {YEARS[0]} to {YEARS[1]}")
        there = of_rows(text, when.notna())
        zones.append(pd.Series(of_rows(text, zone)[there], dtype=object))
        lines.append(table.lines[there])
        parsed.append(pd.Series(of_rows(text, when)))
    own = [zone.unique() for zone in zones if len(zone)]
    if len({zone[0] for zone in own}) > 1 and all(len(zone) == 1 for zone in own):
        found = ", ".join(f"{name} has {zone[0]}" for name, zone in zip(names, own, strict=False))
        raise ValueError(f"{table.path}: mixed time zones: {found}; write both columns in one zone, or both without")
    _one_zone(pd.concat(zones), np.concatenate(lines), complaints)
    return parsed


def _parsed(texts: Any) -> tuple[Any, Any, np.ndarray]:
    """Distinct texts -> themselves, times (NaT where they are none), and time zones in words."""
    import pandas as pd

    texts, times, zones = pd.Series(texts, dtype=object), [], []
    for start in range(0, len(texts), SLICE):
        some_texts = texts[start : start + SLICE]
        if some_texts.str.fullmatch(PLAIN_TIME).all():  # as most files have them
            times.append(pd.to_datetime(some_texts, errors="coerce", format="ISO8601").dt.as_unit("us"))
            zones += [NO_ZONE] * len(some_texts)
            continue
        parts = some_texts.str.extract(TIME)
        clock = parts[1].fillna("00:00")
        clock = clock.where(clock.str.len() > 5, clock + ":00")
        when = pd.to_datetime(parts[0] + "T" + clock, errors="coerce", format="ISO8601")
        times.append(when.dt.as_unit("us"))
        zone = parts[2].fillna(NO_ZONE)
        zones += map(sys.intern, zone.where(~zone.isin(["Z", "UTC"]), "+00:00"))
    return texts, pd.concat(times), np.array(zones, dtype=object)


def _refuse_other_forms(path: Path, name: str, distinct: Any) -> None:
    """Refuse a column in which every time is written in another way, with the lines that rewrite it."""
    if not len(distinct) or re.match(TIME, distinct.iloc[0]):
        return

    def refuse(form: str, how: str) -> None:
        then = f".assign({name}=lambda t: pd.to_datetime(t.{name}, {how}))"
        written = in_pandas(path, then=then)
        raise ValueError(f"{path}: {name} is {form} ({distinct.iloc[0]!r}): write YYYY-MM-DD HH:MM:SS{written}")

    for digits, unit, word in ((10, "s", "seconds"), (13, "ms", "milliseconds"), (16, "us", "microseconds")):
        if distinct.str.fullmatch(rf"\d{{{digits}}}(\.\d+)?").all():
            refuse(f"in {word} since 1970", f'unit="{unit}"')
    parts = distinct.str.extract(r"^(\d{1,2})[/.-](\d{1,2})[/.-](?:\d{4}|\d{2})(?:\D|$)")
    if parts.notna().all(axis=None):
        first, second = (parts[k].astype(int).max() for k in (0, 1))
        if max(first, second) <= 12:
            refuse("with the day first, or the month: make sure which", "dayfirst=True")
        which = "day" if first > 12 else "month"
        refuse(f"with the {which} first", f'format="mixed", dayfirst={first > 12}')


def _one_zone(zones: Any, lines: np.ndarray, complaints: Complaints) -> None:
    if zones.nunique() < 2:
        return
    usual = zones.value_counts().index[0]
    other = (zones != usual).to_numpy()
    text = f"mixed time zones: {{}} here, {usual} in most lines: write all times in one zone, or all without"
    complaints.add(lines[other], zones[other], text)


# --- words ------------------------------------------------------------------------------------------------------------


def counted(number: int, noun: str) -> str:
    """'1 line', '1,200 lines'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(items: Iterable[Any], most: int = 5) -> str:
    """The first few of many: 'a, b, c and 4 more'."""
    items = [str(item) for item in items]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def line_numbers(lines: np.ndarray, most: int = 5) -> str:
    """Ascending line numbers in words: 'line 3', 'line 3, 8', 'lines 3 to 14, 20'."""
    runs = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    words = some((f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs), most)
    return f"line{'s' if ' to ' in words else ''} {words}"


def duration(seconds: float) -> str:
    """A length of time in words: '12.5 ms', '3.2 min'."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size or (unit == "s" and seconds >= 1):
            return f"{seconds / size:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"
