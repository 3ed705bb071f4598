"""Settings of all tests: the repository root is importable from any folder, and torch keeps to one core."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests", ROOT):  # the root goes first: `core` must be this repository's
    sys.path.insert(0, str(folder))

import torch  # noqa: E402  (after the path, like every import of the tests)

torch.set_num_threads(1)  # networks of this size are slower on several cores, and tests share the machine


def script(name: str):
    """The module tests/benchmarks/<name>.py, whose folder is on no path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "benchmarks" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
