"""The banking demo: three routers learn to share three payment channels. `python banking/demo.py`, or with `--fast`.

It shows latency, risk and fees before the training, trains, shows them after it on the same unseen episodes, and
compares both with classical routing rules. Change the algorithm with `--algo qmix`, or the hyper-parameters and the
import lines in train.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from banking.train import PROBLEM
from core.experiment.runs import flags as cli


def main(argv: list[str] | None = None) -> int:
    return cli.main(PROBLEM, argv, demo=True)


if __name__ == "__main__":
    sys.exit(main())
