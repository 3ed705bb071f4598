"""Run the demos, `python main.py --all`, and question what they trained.

Each demo trains its agents, compares them with classical rules, and draws pictures. Retail alone: `python
retail/demo.py`; banking alone: `python banking/demo.py`. Both have more flags.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from core.experiment.runs.signals import stop_quietly

if __name__ == "__main__":  # the imports below take a second or two
    stop_quietly()

from core.experiment.runs.command import EXIT_CODES, Command
from core.experiment.runs.flags import MAX_SEED, whole
from core.experiment.runs.side_by_side import run_side_by_side

ROOT = Path(__file__).resolve().parent
FLAGS = {
    "demos": ("fast", "seed", "device", "out"),
    "audit": ("seed",),
    "what_if": ("episodes", "out"),
    "export": ("to",),
    "deploy": ("episodes", "seed"),
    "play": ("seed", "out"),
    "runs": (),
    "compare": ("out",),
}  # of each action


def parse(argv: list[str] | None) -> argparse.Namespace:
    description = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="main.py", description=description, epilog=EXIT_CODES, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    add = what.add_argument
    add("--all", dest="demos", action="store_const", const=["retail", "banking"], help="both demos")
    add("--retail", dest="demos", action="store_const", const=["retail"], help="five warehouses, MADDPG")
    add("--banking", dest="demos", action="store_const", const=["banking"], help="three routers, MAPPO")
    add(
        "--audit",
        type=Path,
        metavar="RUN",
        help="is execution decentralized? Of a run folder, or retail/results/latest",
    )
    add("--what-if", type=Path, metavar="RUN", help="what if demand surges, a channel fails, ...?")
    add("--export", metavar="RUN", help="each agent as a folder that needs NumPy alone, in --to DIR")
    add("--deploy", metavar="RUN", help="every agent in a process of its own, from its exported files; one is killed")
    playing = "one unseen episode of its team as a GIF (default: of the newest run)"
    add("--play", nargs="?", const=True, metavar="RUN", help=playing)
    runs = "what was run, with what result (DIR: where to look; default: both results folders)"
    add("--runs", nargs="?", const=True, metavar="DIR", help=runs)
    compare = "what differs between two runs, in settings and on the episodes that both were judged on"
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help=compare)
    add = parser.add_argument
    add(
        "--fast",
        action="store_true",
        default=None,
        help="demos: a short budget, to see that everything works (default: no)",
    )
    add(
        "--seed",
        type=whole(0, MAX_SEED),
        metavar="S",
        help="of the training, or of the episode (default: 0; play: 10000)",
    )
    add("--device", metavar="D", help="demos: auto, cpu, cuda, cuda:N (default: auto)")
    add("--episodes", type=int, metavar="N", help="unseen episodes a policy (default: what-if 1000, deploy 5)")
    out = "demos: results go to DIR/retail and DIR/banking; what-if, play, compare: to DIR (default: in the run's)"
    add("--out", type=Path, metavar="DIR", help=out)
    add("--to", type=Path, metavar="DIR", help="export: a new folder, or an empty one")
    options = parser.parse_args(argv)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device or "auto"):
        parser.error(f"argument --device: {options.device!r} was found; give auto, cpu, cuda or cuda:N")
    action = next(name for name in FLAGS if getattr(options, name) is not None)
    for flag in sorted({flag for flags in FLAGS.values() for flag in flags} - set(FLAGS[action])):
        if getattr(options, flag) is not None:
            belongs = " or ".join(name.replace("_", "-") for name, flags in FLAGS.items() if flag in flags)
            parser.error(f"argument --{flag}: it is for {belongs}; leave it out")
    if options.export is not None and options.to is None:
        parser.error("argument --export: --to DIR is missing: say where the agents go")
    return options


def run_demos(options: argparse.Namespace) -> int:
    flags = [
        "--seed",
        str(options.seed or 0),
        "--device",
        options.device or "auto",
        *(["--fast"] if options.fast else []),
    ]
    scripts = []
    for name in options.demos:
        out = [] if options.out is None else ["--out", str(options.out / name)]
        scripts.append((ROOT / name / "demo.py", [*flags, *out]))
    return run_side_by_side(scripts)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.demos:
        return run_demos(options)
    with Command("main.py") as command:  # what is asked of a trained team is imported when it is asked
        command.begin_work()
        if options.audit:
            from core.experiment.deployment.audit import audit

            passed = audit(options.audit) if options.seed is None else audit(options.audit, options.seed)
            command.exit_code = 0 if passed else 1
        if options.what_if:
            from core.experiment.deployment.what_if import what_if

            what_if(options.what_if, 1000 if options.episodes is None else options.episodes, options.out)
        if options.export:
            from core.experiment.deployment.export import export_run

            export_run(options.export, options.to)
        if options.deploy:
            from core.experiment.deployment.deploy import EPISODES, deploy

            seed = {} if options.seed is None else {"seed": options.seed}
            command.exit_code = (
                0 if deploy(options.deploy, EPISODES if options.episodes is None else options.episodes, **seed) else 1
            )
        if options.play:
            from core.experiment.deployment.play import play

            print(play(Path(options.play) if isinstance(options.play, str) else None, options.seed, options.out))
        if options.runs or options.compare:
            from core.experiment.deployment import past_runs

            where = Path(options.runs) if isinstance(options.runs, str) else None
            print(past_runs.list_runs(where) if options.runs else past_runs.compare(options.compare, options.out))
    return command.exit_code


if __name__ == "__main__":
    sys.exit(main())
