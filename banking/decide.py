"""Which channel should be taken now? `python banking/decide.py RUN --inputs FILE.csv`, or `-` for lines as they come.

A line of FILE.csv is what one router knows, in units, under a header of names: `router` and the inputs of
observations.py (`--example FILE.csv` writes such a file). A line of the answer is the channel for the transaction at
the head of its queue, beside that of the best classical rule. On stdin, every line is answered at once.
`--why` says what each input adds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs.signals import stop_quietly

if __name__ == "__main__":  # the imports below take a second or two
    stop_quietly()

from core.experiment.deployment.decide import answer, parse, say_why, write_example
from core.experiment.deployment.saved_teams import open_run
from core.experiment.runs.command import Command


def main(argv: list[str] | None = None) -> int:
    with Command("banking/decide.py") as command:
        options = parse(command.name, __doc__.splitlines()[0], argv)
        run = open_run(options.run, problem="banking")
        command.begin_work()
        if options.example:
            write_example(run, options.example)
        elif options.why:
            say_why(run, options.inputs, options.baseline)
        else:
            command.exit_code = answer(run, options.inputs, options.whole_units)
    return command.exit_code


if __name__ == "__main__":
    sys.exit(main())
