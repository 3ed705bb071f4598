"""The retail demo: five warehouses learn to order. `python retail/demo.py`, or with `--fast` for a first look.

It shows what an episode costs before the training, trains, shows the cost after it on the same unseen episodes, and
compares both with classical inventory rules. Change the algorithm with `--algo mappo`, or the hyper-parameters and the
import lines in train.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs import flags as cli
from retail.train import PROBLEM


def main(argv: list[str] | None = None) -> int:
    return cli.main(PROBLEM, argv, demo=True)


if __name__ == "__main__":
    sys.exit(main())
