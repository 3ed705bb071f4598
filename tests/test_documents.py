"""What README.md and QUICKSTART.md say is so: their code runs, their files, links, flags and hyper-parameters exist.

Code blocks run from top to bottom, the Python blocks of a page in one namespace. A block that would take long has its
fast form above it, one command a line, invisible on the rendered page:

    <!-- run: python retail/demo.py --episodes 20 -->

Commands that install, download or take long by nature are in ``NOT_RUN``; their flags are checked like all others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from conftest import ROOT

from core.base_agent import TeamConfig
from core.maddpg import MADDPGConfig
from core.mappo import MAPPOConfig
from core.qmix import QMIXConfig
from core.team.config import range_of

PAGES = ("README.md", "QUICKSTART.md")
LINKED = (*PAGES, "docs/CHANGELOG.md", "docs/MARL_THEORY.md", "docs/BENCHMARKS.md")
NOT_RUN = (
    "python3 -m venv",
    "source ",
    "pip install",
    "torchrun",
    "pytest",
    "bash .ci/run",  # it runs this test
    "python main.py --all",  # both demos in full; test_cli.py runs main.py in small
    "python main.py --audit",  # starts a process an agent; test_audit.py runs it
    "python retail/train.py --data",  # tunes the classical rules for a minute; test_cli.py runs it in small
    "python banking/train.py --data",
    "python retail/train.py --start-from",  # copies a rule for a minute; test_imitation.py runs it in small
    "python banking/train.py --start-from",
)
OTHER_PROGRAMS = {
    "--index-url",
    "--nproc-per-node",
    "--nnodes",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--lowest",
    "--dist",
    "--times",
}  # pip, torchrun, CI, pytest, faults.py

BLOCK = re.compile(r"((?:^<!-- run: [^\n]+ -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"(?:python3? |torchrun (?:--\S+ )*)(-m )?([\w./-]+)(.*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
KEY_TABLE = re.compile(r"<!-- keys: (\w+) -->\n(.*?)(?=<!-- keys: )", re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[tuple[list[str], str]]:
    """(fast form, code) of every block of a language."""
    found = BLOCK.findall(text(page))
    return [(re.findall(r"<!-- run: (.+) -->", fast), code) for fast, kind, code in found if kind == language]


def commands(code: str) -> list[str]:
    """The commands of a bash block; those joined by && are separate."""
    lines = (line.strip() for line in code.splitlines())
    return [part.strip() for line in lines if line and line[0] != "#" for part in line.split("&&")]


def runs(command: str) -> bool:
    return not command.startswith(NOT_RUN)


@functools.cache
def module_of(script: str):
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


@functools.cache
def flags_of(script: str) -> set[str]:
    """All flags that ``--help`` of a script names."""
    script = "core/experiment/deployment/policy.py" if script.endswith("/policy.py") else script
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        module_of(script).main(["--help"])
    return set(FLAG.findall(printed.getvalue()))


def run(command: str, folder: Path) -> int:
    """Run a command as if in the repository's root, with its results in ``folder`` -> exit code."""
    words = shlex.split(command)
    for name in ("retail", "banking"):
        words = [word.replace(f"{name}/results", str(folder / name)) for word in words]
    made = [word.startswith("agents") or word.endswith(".csv") and not (ROOT / word).exists() for word in words]
    words = [str(folder / word) if new else word for word, new in zip(words, made, strict=True)]
    if words[:2] == ["python", "-c"]:
        exec(words[2], {})
        return 0
    if words[0] != "python":
        return subprocess.run(words, cwd=ROOT, capture_output=True, timeout=20).returncode
    script, arguments = words[1], words[2:]
    if Path(script).is_absolute():  # an exported policy, which needs nothing of this repository
        return subprocess.run(
            [sys.executable, "-I", *words[1:]], cwd=folder, capture_output=True, timeout=60
        ).returncode
    if script.endswith(("train.py", "demo.py")):
        arguments += ["--out", str(folder / script.split("/")[0])]
    return module_of(script).main(arguments)


# --- code ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def after_block(tmp_path_factory):
    """QUICKSTART's Python blocks, run from top to bottom -> what each left, a copy of the namespace a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("quickstart"))
        names, left = {"__name__": __name__}, []
        for number, (fast, code) in enumerate(blocks("QUICKSTART.md", "python"), 1):
            for command in map(shlex.split, fast):  # what the block takes for granted
                assert module_of(command[1]).main(command[2:]) == 0
            exec(compile(code, f"QUICKSTART.md, Python block {number}", "exec"), names)
            left.append((code, dict(names)))
    return lambda phrase: next(found for code, found in left if phrase in code)


def test_the_given_and_the_custom_algorithm_learn_the_custom_environment(after_block):
    given, custom = after_block("env = CrateEnv()"), after_block("class LinearQTeam")
    before = given["before"]["team_return"].mean()
    assert given["after"]["team_return"].mean() > before + 5.0
    assert custom["after"]["team_return"].mean() > before + 5.0


def test_the_custom_algorithm_saves_loads_and_acts_alone_as_in_its_team(after_block, tmp_path):
    team = after_block("class LinearQTeam")["linear"]
    team.save(tmp_path / "team.pt")
    loaded = type(team).load(tmp_path / "team.pt")
    observations = np.random.default_rng(0).random((3, 2), np.float32)
    together = team.select_actions(observations, training=False)
    assert [loaded[i].select_action(observations[i]) for i in range(3)] == together.tolist()


@pytest.mark.parametrize("algorithm", ["maddpg", "qmix"])
def test_the_custom_environment_trains_after_changing_the_import_line_alone(algorithm):
    names: dict = {"__name__": __name__}
    (environment,) = [code for _, code in blocks("QUICKSTART.md", "python") if "class CrateEnv" in code]
    (training,) = [code for _, code in blocks("QUICKSTART.md", "python") if "env = CrateEnv()" in code]
    line = "from core.mappo import create_mappo_agents as create_agents"
    assert training.count(line) == 1 and training.count("mappo") == 2
    exec(environment, names)
    exec(training.replace("mappo", algorithm).replace("episodes=300", "episodes=60"), names)
    assert algorithm in type(names["agents"]).__module__
    assert len(names["history"]) == 60 and names["agents"].updates > 0


@pytest.mark.parametrize("page", PAGES)
def test_the_bash_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for script in ("banking/train.py", "banking/demo.py"):  # episodes of a fifth of the length
        module = module_of(script)
        monkeypatch.setattr(module, "make_env", functools.partial(module.make_env, episode_steps=120))
    for fast, code in blocks(page, "bash"):
        for command in fast or filter(runs, commands(code)):
            assert run(command, tmp_path) == 0, f"{page}: {command}"


@pytest.mark.parametrize("page", PAGES)
def test_a_fast_form_is_the_command_of_the_page_with_a_smaller_budget(page):
    for fast, code in blocks(page, "bash"):
        if fast:
            shown = [command for command in commands(code) if runs(command)]
            assert len(fast) == len(shown), code
            for quick, full in zip(fast, shown, strict=True):
                assert quick.split()[:2] == full.split()[:2], f"{quick!r} is another script than {full!r}"
                assert set(FLAG.findall(full)) <= set(FLAG.findall(quick)), f"{quick!r} lacks flags of {full!r}"


# --- names --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    here, dead = ROOT / page, []
    for target in LINK.findall(text(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (here.parent / path) if path else here
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", LINKED)
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"(?<![\w/<])(?:core|retail|banking|docs|tests)/[\w./-]+\.\w+", text(page)))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def layout() -> set[str]:
    """Every path in the tree of the README."""
    (tree,) = [code for _, kind, code in BLOCK.findall(text("README.md")) if not kind]
    paths, folders = set(), [""]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        paths |= {"".join(folders[: depth + 1]) + name for name in names}
        folders = [*folders[: depth + 1], names[0] if names[0].endswith("/") else ""]
    return paths


def test_the_layout_is_the_repository():
    shown = layout()
    assert sorted(path for path in shown if not (ROOT / path).exists()) == []
    there = {str(p.relative_to(ROOT)) for top in ("core", "retail", "banking") for p in (ROOT / top).rglob("*.py")}
    assert sorted(path for path in there - shown if not path.endswith("__init__.py")) == []


def test_flags_of_commands_are_known_to_their_scripts():
    wrong = []
    for page in PAGES:
        shown = [line for fast, code in blocks(page, "bash") for line in [*fast, *commands(code)]]
        for command in shown + re.findall(r"`((?:python|torchrun) [^`]+)`", text(page)):
            found = SCRIPT.match(command)
            if found and not command.startswith("python -c"):
                script = found[2].replace(".", "/") + ".py" if found[1] else found[2]
                wrong += [f"{command}: {flag}" for flag in set(FLAG.findall(found[3])) - flags_of(script)]
    assert wrong == []


def test_flags_that_are_named_exist():
    scripts = [
        f"{problem}/{name}.py" for problem in ("retail", "banking") for name in ("train", "demo", "decide", "baselines")
    ]
    known = set().union(*map(flags_of, ["main.py", "agents/policy.py", *scripts])) | OTHER_PROGRAMS
    for page in PAGES:
        prose = re.sub(r"<!--.*?-->", "", text(page), flags=re.DOTALL)
        assert set(FLAG.findall(prose)) - known == set(), page


# --- tables -------------------------------------------------------------------------------------------------------


def key_tables(which: str = "default") -> dict[str, dict[str, str]]:
    """Config class -> key -> the default, or the range, that the page states."""
    rows = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
    column = ("default", "range").index(which)
    tables = KEY_TABLE.findall(text("QUICKSTART.md"))
    return {name: {row[0]: row[1 + column].strip() for row in rows.findall(table)} for name, table in tables}


def test_the_tables_list_every_hyper_parameter_and_no_other():
    common = [field.name for field in dataclasses.fields(TeamConfig)]
    tables = key_tables()
    assert list(tables["TeamConfig"]) == common
    for config in (MADDPGConfig, MAPPOConfig, QMIXConfig):
        own = [field.name for field in dataclasses.fields(config) if field.name not in common]
        assert list(tables[config.__name__]) == own


def test_the_tables_state_the_defaults():
    configs = {config.__name__: config() for config in (MADDPGConfig, MAPPOConfig, QMIXConfig)}
    for name, table in key_tables().items():
        for key, stated in table.items():
            values = {getattr(config, key) for own, config in configs.items() if name in (own, "TeamConfig")}
            if stated.strip() == "by algorithm":
                assert len(values) > 1, key
                continue
            written = {_value(part.strip()) for part in stated.split(";")}
            assert written == values, f"{key}: the page says {written}, the code {values}"


def test_the_tables_state_the_ranges_that_are_the_types():
    for config in (TeamConfig, MADDPGConfig, MAPPOConfig, QMIXConfig):
        kinds = get_type_hints(config, include_extras=True)
        for key, stated in key_tables("range")[config.__name__].items():
            assert stated.replace("≥", ">=") == range_of(kinds[key]), key


def _value(written: str):
    """A default as it stands in a table."""
    named = {"none": None, "true": True, "false": False, "()": ()}
    if written in named:
        return named[written]
    if written.startswith("("):
        return tuple(int(width) for width in written.strip("()").split(","))
    try:
        return float(written.replace("−", "-"))
    except ValueError:
        return written
