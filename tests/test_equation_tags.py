"""Page and code tell one story: every equation of docs/MARL_THEORY.md has its line of code, and the other way round.

On the page an equation is headed by a line such as

    **(MADDPG-4)** The critic's target · `td_target` in `core/maddpg.py`

and in the code the tag stands in a comment inside that very function. A letter has one meaning in a section: that of
the list at the top of the page, or of the section's own.

"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "MARL_THEORY.md").read_text(encoding="utf-8")
FILES = {"MADDPG": "core/maddpg.py", "MAPPO": "core/mappo.py", "QMIX": "core/qmix.py"}  # an algorithm is one file
PLACES = {  # tag -> where its equations may be computed
    **{name: re.escape(file) for name, file in FILES.items()},
    "GAME": r"docs/figures\.py",
    "RETAIL": r"retail/\w+\.py",
    "BANKING": r"banking/\w+\.py",
}
CODE = sorted(
    path.relative_to(ROOT).as_posix()
    for top in ("core", "retail", "banking", "docs")
    for path in ROOT.glob(f"{top}/**/*.py")
)

_TAG = rf"({'|'.join(PLACES)})-(\d+)"
TAG = re.compile(rf"\({_TAG}\)")
HEADING = re.compile(rf"^\*\*\({_TAG}\)\*\* .*`([\w.]+)` in `([\w/]+\.py)`$", re.MULTILINE)
LETTER_ROW = re.compile(r"^\| ([A-Z]) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)

EQUATIONS = {f"{name}-{number}": (function, file) for name, number, function, file in HEADING.findall(PAGE)}


def comments(file: str) -> list[tuple[int, str]]:
    """Line number and text of every comment of a file."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def tags_in_comments(file: str) -> dict[str, list[int]]:
    """Tag -> the lines of a file whose comment carries it."""
    found: dict[str, list[int]] = {}
    for line, text in comments(file):
        for name, number in TAG.findall(text):
            found.setdefault(f"{name}-{number}", []).append(line)
    return found


def functions(file: str) -> dict[str, range]:
    """Qualified name of every function and method -> its lines."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = f"{prefix}{child.name}"
                if isinstance(child, ast.FunctionDef):
                    found[name] = range(child.lineno, child.end_lineno + 1)
                visit(child, f"{name}.")

    visit(ast.parse((ROOT / file).read_text(encoding="utf-8")), "")
    return found


# --- Tags -------------------------------------------------------------------------------------------------------------


def test_no_equation_is_on_the_page_twice():
    headings = [f"{name}-{number}" for name, number in re.findall(rf"^\*\*\({_TAG}\)\*\*", PAGE, re.MULTILINE)]
    assert sorted(headings) == sorted(set(headings))
    assert set(headings) == set(EQUATIONS), "every heading names its function and file, as the docstring shows"


def test_an_equation_follows_every_heading():
    for heading in HEADING.finditer(PAGE):
        assert PAGE[heading.end() :].startswith("\n\n$$\n"), heading.group(0)


def test_every_displayed_equation_has_a_heading():
    blocks = re.split(r"^\$\$$", PAGE, flags=re.MULTILINE)
    untagged = [equation for before, equation in zip(blocks[::2], blocks[1::2], strict=False) if not tagged(before)]
    assert not untagged, "write these inside a sentence, or give them a tag and a line of code"


def tagged(text: str) -> bool:
    return HEADING.fullmatch(text.rstrip().splitlines()[-1]) is not None


def test_equations_are_numbered_in_the_order_of_reading():
    numbers: dict[str, list[int]] = {}
    for name, number, _, _ in HEADING.findall(PAGE):
        numbers.setdefault(name, []).append(int(number))
    assert numbers == {name: list(range(1, len(found) + 1)) for name, found in numbers.items()}


@pytest.mark.parametrize("tag", EQUATIONS)
def test_every_equation_has_its_line_in_the_function_that_it_names(tag):
    function, file = EQUATIONS[tag]
    assert re.fullmatch(PLACES[tag.split("-")[0]], file), f"({tag}) is not an equation of {file}"
    assert function in functions(file), f"{file} has no function {function}"
    lines = tags_in_comments(file).get(tag, [])
    assert lines, f"({tag}) is on the page, but in no comment of {file}"
    assert [line for line in lines if line not in functions(file)[function]] == [], f"({tag}) is not in {function}"


@pytest.mark.parametrize("file", CODE)
def test_every_tag_in_the_code_is_an_equation_of_the_page(file):
    assert {tag: lines for tag, lines in tags_in_comments(file).items() if tag not in EQUATIONS} == {}


def test_the_page_mentions_no_equation_that_it_does_not_have():
    assert {f"{name}-{number}" for name, number in TAG.findall(PAGE)} == set(EQUATIONS)


# --- Letters of shapes ------------------------------------------------------------------------------------------------


def page_letters() -> set[tuple[str, str, str]]:
    """(letter, meaning, file) as the page's table of letters has them."""
    section = PAGE.partition("### Letters")[2].partition("\n## ")[0]
    rows = LETTER_ROW.findall(section)
    return {(letter, meaning.strip(), name.strip()) for letter, meaning, names in rows for name in names.split(",")}


def code_letters(name: str) -> set[tuple[str, str, str]]:
    """The same from the `Shapes:` sentence of a file's docstring; remarks in brackets and formulas are left out."""
    docstring = ast.get_docstring(ast.parse((ROOT / f"core/{name}.py").read_text(encoding="utf-8")))
    sentence = re.search(r"Shapes: (.*?)\.(?:\s|$)", docstring, re.DOTALL).group(1)
    sentence = re.sub(r"\([^)]*\)", "", " ".join(sentence.split()))
    pairs = (re.fullmatch(r"([A-Z])(?: = [^a-z]*)? ([a-z ]+)", part.strip()).groups() for part in sentence.split(","))
    return {(letter, meaning.strip(), name) for letter, meaning in pairs}


def test_page_and_algorithms_spell_shapes_with_the_same_letters():
    names = [Path(file).stem for file in FILES.values()]
    assert page_letters() == set().union(*(code_letters(name) for name in names))


@pytest.mark.parametrize("name", [Path(file).stem for file in FILES.values()])
def test_shape_comments_use_no_other_letter(name):
    allowed = {letter for letter, _, _ in code_letters(name)}
    used = set()
    for _, text in comments(f"core/{name}.py"):
        for shape in re.findall(r"\(([^()]*,[^()]*)\)", text):
            if re.fullmatch(r"[\w *+.,-]+", shape) and not re.search(r"[a-z]{2}", shape.replace("or", "")):
                used |= set(re.findall(r"\b[A-Z]\b", shape))
    assert used and used <= allowed


# --- Letters of equations ---------------------------------------------------------------------------------------------

GREEK = "alpha beta gamma delta epsilon varepsilon eta theta kappa lambda mu nu xi pi rho sigma varsigma".split()
GREEK += ["tau", "phi", "varphi", "omega"]
SECTIONS = dict(re.findall(r"^## (\d+)\. [^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TABLE_OF_SYMBOLS = re.compile(r"^\| in [^|]+\| here \| in the code \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
LETTERS_HERE = re.compile(r"^\*Letters here:\*.*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def letters(text: str) -> list[str]:
    """The letters in the mathematics of a text, in order and with repeats; words and decorations are left out."""
    inline = re.findall(r"\$`(.*?)`\$", text, re.DOTALL)
    displayed = re.findall(r"^\$\$\n(.*?)^\$\$", text, re.MULTILINE | re.DOTALL)
    found = []
    for formula in inline + displayed:
        formula = re.sub(r"\\(text|mathrm|mathbb|mathcal)\{[^}]*\}", " ", formula)
        found += re.findall(rf"\\({'|'.join(GREEK)})(?![A-Za-z])", formula)
        found += re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula))
    return found


def emphasis(text: str) -> bool:
    """Would Markdown see a pair of underscores that make what is between them italic? (CommonMark 6.2)"""
    opened = False
    for before, after in re.findall(r"(.)_(?=(.))", f" {text} ", re.DOTALL):
        left = not after.isspace() and (after.isalnum() or not before.isalnum())
        right = not before.isspace() and (before.isalnum() or not after.isalnum())
        if opened and right and (not left or not after.isalnum()):
            return True
        opened = opened or (left and (not right or not before.isalnum()))
    return False


def test_formulas_survive_markdown():
    """GitHub takes the backslash from a display's punctuation, and may not join an inline formula over two lines."""
    formulas = re.findall(r"\$`(.*?)`\$", PAGE, re.DOTALL)
    assert [formula for formula in formulas if "\n" in formula] == []
    displayed = re.findall(r"^\$\$\n(.*?)^\$\$", PAGE, re.MULTILINE | re.DOTALL)
    assert [display for display in displayed if re.search(r"\\[^A-Za-z\s]", display)] == []
    assert [display for display in displayed if emphasis(display)] == []
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert [row for row in rows if any("|" in formula for formula in re.findall(r"\$`(.*?)`\$", row))] == []


def declared(text: str) -> list[str]:
    """The first letter of every formula: `o_i` gives o a meaning."""
    formulas = re.findall(r"\$`.*?`\$", text, re.DOTALL)
    return [letters(formula)[0] for formula in formulas if letters(formula)]


def declared_everywhere() -> list[str]:
    return declared(PAGE.partition("On the whole page:")[2].partition("\n\n")[0])


def declared_in(section: str) -> list[str]:
    """What a section's list of letters and the middle column of its table of symbols declare; one row, one meaning."""
    rows = [row.split("|")[2] for table in TABLE_OF_SYMBOLS.findall(SECTIONS[section]) for row in table.splitlines()]
    found = [letter for row in rows for letter in dict.fromkeys(declared(row)) if letter not in declared_everywhere()]
    return found + [letter for text in LETTERS_HERE.findall(SECTIONS[section]) for letter in declared(text)]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_letter_of_a_section_has_one_meaning_there(section):
    everywhere, here = declared_everywhere(), declared_in(section)
    assert {letter: count for letter, count in Counter(everywhere + here).items() if count > 1} == {}
    text = TABLE_OF_SYMBOLS.sub(lambda table: table[0].replace(table[1], ""), SECTIONS[section])
    shapes = {letter for letter, _, _ in page_letters()}
    unknown = set(letters(text)) - set(everywhere) - set(here) - shapes
    assert not unknown, f"section {section} uses letters that nobody declares"


# --- Sources ----------------------------------------------------------------------------------------------------------

BODY, _, REFERENCES = PAGE.partition("\n## 13. References")
LISTED = re.findall(r"^- (.*?)(?: et al\.)?(?:,.*?)? \((\d{4})\)\.", REFERENCES, re.MULTILINE)  # first author, year
CITED = r"([A-Z][\w'-]+)(?: et al\.|(?:, [A-Z]\w+)* and [A-Z]\w+)? \(?((?:19|20)\d\d)\b"


def test_every_reference_is_cited_and_every_citation_has_its_reference():
    text = " ".join(BODY.split())
    listed = {(author.split()[-1], year) for author, year in LISTED}
    assert len(listed) > 40
    assert {work for work in listed if not re.search(rf"{work[0]}\b.{{0,80}}?{work[1]}", text)} == set()
    assert {work for work in re.findall(CITED, text) if work not in listed} == set()


# --- What a reader passes ---------------------------------------------------------------------------------------------

PSEUDOCODE = re.compile(r"\n\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = 71  # the column in which the names begin


@pytest.mark.parametrize("section", "345")
def test_pseudocode_has_at_most_twelve_lines_and_names_functions_that_exist(section):
    lines = PSEUDOCODE.search(SECTIONS[section])[1].splitlines()
    named = [name for line in lines if line[NAMES:] for name in line[NAMES:].split(", ")]
    known = {name.rpartition(".")[2] for file in CODE if file.startswith("core/") for name in functions(file)}
    assert len(lines) <= 12 and len(named) >= 6
    assert {name.rpartition(".")[2] for name in named} - known == set()


@pytest.mark.parametrize("section", "345")
def test_a_reader_of_one_algorithm_passes_a_third_of_the_page_and_three_exercises(section):
    before = PAGE.partition("\n## 3. ")[0]
    assert 3 * len((before + SECTIONS[section]).splitlines()) <= len(PAGE.splitlines())
    assert SECTIONS[section].count("<details><summary>Answer</summary>") == 3


@pytest.mark.parametrize("section", "345")
def test_the_minutes_of_day_2_are_its_words_at_200_a_minute(section):
    quickstart = (ROOT / "QUICKSTART.md").read_text(encoding="utf-8")
    minutes = int(re.search(r"^\| \[2\].*?\| (\d+) minutes", quickstart, re.MULTILINE)[1])
    text = PAGE.partition("\n## 3. ")[0] + SECTIONS[section]
    text = re.sub(r"^```python\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert abs(len(text.split()) / 200 - minutes) <= 5
