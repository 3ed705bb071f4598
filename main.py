"""Run the demos: `python main.py --all`. Each trains its agents, compares them with classical rules, draws pictures.

Retail alone: `python retail/demo.py`; banking alone: `python banking/demo.py`. Both have more flags.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from core.experiment.runs.flags import EXIT_CODES, whole
from core.experiment.runs.signals import run_side_by_side

ROOT = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="main.py", description=__doc__.splitlines()[0], epilog=EXIT_CODES, allow_abbrev=False
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", dest="demos", action="store_const", const=["retail", "banking"], help="both demos")
    which.add_argument("--retail", dest="demos", action="store_const", const=["retail"], help="five warehouses, MADDPG")
    which.add_argument("--banking", dest="demos", action="store_const", const=["banking"], help="three routers, MAPPO")
    parser.add_argument(
        "--fast", action="store_true", help="a short budget, to see that everything works (default: no)"
    )
    parser.add_argument("--seed", type=whole(0, 10**9), default=0, metavar="S", help="of the training (default: 0)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N (default: auto)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="results go to DIR/retail and DIR/banking (default: retail/results, banking/results)",
    )
    options = parser.parse_args(argv)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        parser.error(f"argument --device: {options.device!r} was found; give auto, cpu, cuda or cuda:N")
    flags = ["--seed", str(options.seed), "--device", options.device, *(["--fast"] if options.fast else [])]
    scripts = []
    for name in options.demos:
        out = [] if options.out is None else ["--out", str(options.out / name)]
        scripts.append((ROOT / name / "demo.py", [*flags, *out]))
    return run_side_by_side(scripts)


if __name__ == "__main__":
    sys.exit(main())
