"""The layout and the direction of dependencies: what may import what, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = {"core.maddpg", "core.mappo", "core.qmix"}
TEAM = [f"team/{name}" for name in ("config", "files", "members", "memory", "spread", "state")]
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


def test_environments_know_nothing_of_learning():
    for problem in ("retail", "banking"):
        for name in ("environment", "baselines"):
            assert not within(imports(ROOT / f"{problem}/{name}.py"), "core", "torch"), (problem, name)


def test_requirements_are_lower_bounds():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.split(">=")[0] for line in lines} == {"torch", "numpy", "matplotlib", "pandas", "tqdm", "pytest"}
    assert not any(mark in line for line in lines for mark in ("==", "<", "~="))


def test_results_are_not_tracked_but_their_folder_is():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for problem in ("retail", "banking"):
        assert f"{problem}/results/*" in ignored and f"!{problem}/results/.gitkeep" in ignored
