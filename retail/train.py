"""Train warehouses to order: `python retail/train.py`, `--help` for all flags.

The same story as demo.py, with more flags: several seeds, a curriculum, your own sales (`--data`). To train another
algorithm, change the import line below or give `--algo`; what each algorithm is given stands in settings.py. The
training loop is core/experiment/training.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs.signals import stop_quietly

if __name__ == "__main__":  # the imports below take a second or two
    stop_quietly()

from core.experiment.reporting.checks import cautions
from core.experiment.runs.command import Command
from core.experiment.runs.flags import MEANINGLESS, parse
from core.experiment.runs.run import Run
from core.experiment.runs.settings import name_of
from core.maddpg import create_maddpg_agents as create_agents  # the algorithm: change this line, or give --algo
from retail.data import data_report
from retail.own_rule import from_levels
from retail.records import load_sales
from retail.report import BESIDE, COLUMNS, SHARES, draw, save_tables, tell, write_page
from retail.settings import EPISODES, SETTINGS, make_env, rules

DATA = "your own sales instead of drawn demand: the columns date, warehouse, units (see data.py)"
BESIDE_DATA = {**MEANINGLESS, "difficulty": MEANINGLESS["curriculum"]}


def main(argv: list[str] | None = None) -> int:
    with Command("retail/train.py") as command:
        algorithm = name_of(create_agents, SETTINGS)
        options = parse(
            command.name, SETTINGS, algorithm, argv, episodes=EPISODES, data_help=DATA, beside_data=BESIDE_DATA
        )
        run = Run("retail", options, SETTINGS, make_env, command)
        data = run.options.data
        env = run.environment(run.seeds[0])
        agents = run.team(env, run.seeds[0])  # refused now, if at all
        classical = rules(run.unseen) if data is None else None
        own = run.own_rule(from_levels)  # {} without --rule
        run.require_start(classical and classical | own)
        report = "" if data is None else data_report(load_sales(data)) + "\n"
        run.begin(env, agents, COLUMNS[0], report)
        if data is not None:
            run.write("data_report.txt", report)
            run.say("The classical rules are tuned on the training part of your data, for about a minute ...")
            classical = rules(run.unseen)

        run.judge_rules(classical | own)
        for number, seed in enumerate(run.seeds):
            if number > 0:
                env = run.environment(seed)
                agents = run.team(env, seed)
            run.judge_untrained(agents, seed)
            run.train(env, agents, seed, rules=classical | own)
            run.judge_trained(agents, seed)
        run.beside(BESIDE, classical | own)  # one of the unseen episodes by the rule to beat, or your own

        if run.is_main:
            results = run.results(SHARES)
            caution = "; ".join(cautions(load_sales(data).notes)) if data else ""
            tell(run, results, caution)
            save_tables(run.folder, results)
            if run.options.plots:
                draw(run, results)
            write_page(run, results, caution, report)
            run.finish()
    return command.exit_code


if __name__ == "__main__":
    sys.exit(main())
