"""Settings of all tests: the repository root is importable from any folder, and torch keeps to one core."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests", ROOT):  # the root goes first: `core` must be this repository's
    sys.path.insert(0, str(folder))

import pytest  # noqa: E402
import torch  # noqa: E402  (after the path, like every import of the tests)

torch.set_num_threads(1)  # networks of this size are slower on several cores, and tests share the machine


def script(name: str):
    """The module tests/benchmarks/<name>.py, whose folder is on no path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "benchmarks" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of a few episodes for each problem, as its train.py makes it -> its folder by problem."""
    import functools

    import banking.train
    import retail.train

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banking.train, "make_env", functools.partial(banking.train.make_env, episode_steps=60))
        for name, module in {"retail": retail.train, "banking": banking.train}.items():
            out = tmp_path_factory.mktemp(name) / "results"
            flags = "--episodes 4 --num-envs 2 --eval-every 0 --eval-episodes 3 --no-plots --quiet --out".split()
            assert module.main([*flags, str(out)]) == 0
            found[name] = out / (out / "latest").read_text().strip()
    return found
