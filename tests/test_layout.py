"""The layout and the direction of dependencies: what may import what, read from the source."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = {"core.maddpg", "core.mappo", "core.qmix"}
TEAM = [f"team/{name}" for name in ("checks", "config", "descent", "files", "members", "memory", "spread", "state")]
LEARNING = ["base_agent", "maddpg", "mappo", "networks", "qmix", "replay_buffer", "utils", *TEAM]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, as dotted names; `from core import maddpg` is core.maddpg."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, found a relative one in line {node.lineno}"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_at_the_top(path: Path) -> set[str]:
    """Packages that importing a file loads: those of import lines outside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(outer)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def within(names: set[str], *prefixes: str) -> set[str]:
    return {name for name in names if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)}


def test_everything_has_its_place():
    expected = ["main.py", "requirements.txt", "pyproject.toml", ".gitignore", ".ci/run", "core/__init__.py"]
    expected += [f"core/{name}.py" for name in LEARNING]
    expected += [f"core/experiment/{name}.py" for name in ("training", "evaluation", "runs/checkpoint", "runs/folders")]
    for problem in ("retail", "banking"):
        expected += [f"{problem}/{name}.py" for name in ("environment", "baselines", "train", "demo")]
        expected += [f"{problem}/results/.gitkeep"]
    assert [name for name in expected if not (ROOT / name).is_file()] == []


def test_the_package_core_holds_only_its_docstring():
    body = ast.parse((ROOT / "core/__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr), "core/__init__.py holds the reading order and no code"


@pytest.mark.parametrize("name", LEARNING)
def test_learning_imports_only_torch_numpy_the_standard_library_and_itself(name):
    import sys

    allowed = {"torch", "numpy", "core", "__future__"} | set(sys.stdlib_module_names)
    path = ROOT / f"core/{name}.py"
    assert {module.split(".")[0] for module in imports(path)} <= allowed
    assert not within(imports(path), "core.experiment", "argparse", "retail", "banking")


@pytest.mark.parametrize("name", TEAM)
def test_the_workshop_never_looks_back_at_the_school(name):
    within_core = within(imports(ROOT / f"core/{name}.py"), "core")
    assert within_core == within(within_core, "core.team", "core.networks", "core.utils")


@pytest.mark.parametrize("algorithm", ["maddpg", "mappo", "qmix"])
def test_an_algorithm_with_all_it_stands_on_can_be_read_in_an_afternoon(algorithm):
    path = [algorithm, "base_agent", "networks", "replay_buffer", "utils"]
    lines = {name: len((ROOT / f"core/{name}.py").read_text(encoding="utf-8").splitlines()) for name in path}
    assert lines["base_agent"] <= 350 and sum(lines.values()) <= 1250, lines


def test_algorithms_never_import_each_other():
    for name in ALGORITHMS:
        path = ROOT / f"{name.replace('.', '/')}.py"
        assert not within(imports(path), *(ALGORITHMS - {name})), path


@pytest.mark.parametrize("path", python_files("core/experiment"), ids=lambda path: path.stem)
def test_the_experiment_code_knows_no_algorithm_and_no_problem(path):
    assert not within(imports(path), *ALGORITHMS, "retail", "banking", "main")


@pytest.mark.parametrize("path", python_files("core/experiment"), ids=lambda path: path.stem)
def test_plots_and_tables_are_loaded_where_they_are_used(path):
    assert not imports_at_the_top(path) & {"matplotlib", "pandas", "tqdm"}


def test_the_problems_never_import_each_other_nor_main():
    for problem, other in (("retail", "banking"), ("banking", "retail")):
        for path in python_files(problem):
            assert not within(imports(path), other, "main"), path


def test_environments_and_rules_know_nothing_of_learning():
    tuning = {"core", "core.experiment", "core.experiment.tuning"}  # seeds, search and intervals, with NumPy alone
    for problem in ("retail", "banking"):
        assert not within(imports(ROOT / f"{problem}/environment.py"), "core", "torch"), problem
        found = within(imports(ROOT / f"{problem}/baselines.py"), "core", "torch")
        assert {name for name in found if not name.startswith("core.experiment.tuning")} <= tuning, problem
    assert not within(imports(ROOT / "core/experiment/tuning.py"), "core", "torch")


def test_requirements_are_lower_bounds():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.split(">=")[0] for line in lines} == {"torch", "numpy", "matplotlib", "pandas", "tqdm", "pytest"}
    assert not any(mark in line for line in lines for mark in ("==", "<", "~="))


def test_what_is_optional_is_listed_for_everybody_and_installed_by_the_whole_check():
    lines = (ROOT / "tests/requirements-optional.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.split(">=")[0] for line in lines if line and not line.startswith("#")}
    skipped = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        skipped |= set(re.findall(r'importorskip\("(\w+)', path.read_text(encoding="utf-8"))) - {"PIL"}
    assert skipped <= listed and "tests/requirements-optional.txt" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_results_are_not_tracked_but_their_folder_is():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for problem in ("retail", "banking"):
        assert f"{problem}/results/*" in ignored and f"!{problem}/results/.gitkeep" in ignored


# --- the direction of dependencies ------------------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything but tests and documents."""
    files = [ROOT / "main.py", *(path for folder in ("core", "retail", "banking") for path in python_files(folder))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def test_no_circle_among_imports():
    files = modules()
    needs = {name: within(imports(path), *files) & set(files) - {name} for name, path in files.items()}
    while free := [name for name, needed in needs.items() if not needed]:
        for name in free:
            del needs[name]
        needs = {name: needed - set(free) for name, needed in needs.items()}
    assert needs == {}, "these import each other"


def test_running_and_reporting_know_nothing_of_deployment():
    for room in ("runs", "reporting"):
        for path in python_files(f"core/experiment/{room}"):
            assert not within(imports(path), "core.experiment.deployment"), path


@pytest.mark.parametrize("script", ["train", "demo"])
@pytest.mark.parametrize(("problem", "old", "new"), [("retail", "maddpg", "mappo"), ("banking", "mappo", "qmix")])
def test_the_exchanged_import_line_trains_the_other_algorithm(tmp_path, problem, script, old, new):
    """As a reader does it: edit one line of a copy, run it."""
    for folder in ("core", "retail", "banking"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    path = tmp_path / problem / f"{script}.py"
    lines = path.read_text(encoding="utf-8")
    line = f"from core.{old} import create_{old}_agents as create_agents"
    assert lines.count(line) == 1
    path.write_text(lines.replace(line, f"from core.{new} import create_{new}_agents as create_agents"), "utf-8")
    flags = ["--episodes", "4", "--eval-episodes", "2", "--no-plots", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, str(path), *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"{new.upper()} trains 4 episodes" in done.stdout, done.stderr
    config = json.loads(next((tmp_path / "out").glob("2*/config.json")).read_text(encoding="utf-8"))
    expected = importlib.import_module(f"{problem}.settings").SETTINGS[new]
    assert config["algo"] == new and config["hyperparameters"].items() >= plain(expected.config).items()


def plain(config: dict) -> dict:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
