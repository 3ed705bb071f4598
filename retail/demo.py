"""The retail demo: five warehouses learn to order. `python retail/demo.py`, or with `--fast` for a first look.

It shows what an episode costs before the training, trains, shows the cost after it on the same unseen episodes, and
compares both with classical inventory rules. To see another algorithm, change the import line below or give `--algo`;
what each algorithm is given stands in settings.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs.signals import stop_quietly

if __name__ == "__main__":  # the imports below take a second or two
    stop_quietly()

from core.experiment.runs.command import Command
from core.experiment.runs.flags import parse
from core.experiment.runs.run import Run
from core.experiment.runs.settings import name_of
from core.maddpg import create_maddpg_agents as create_agents  # the algorithm: change this line, or give --algo
from retail.own_rule import from_levels
from retail.report import BESIDE, COLUMNS, SHARES, draw, save_tables, tell, write_page
from retail.settings import EPISODES, SETTINGS, make_env, rules

FAST_EPISODES = 200
STORY = """\
Five warehouses order one item from one supplier every day for 30 days. Running out costs $10 a
unit, moving a unit $0.50, keeping it overnight $0.10. A warehouse sees its own shelves alone and,
at first, orders anything. The aim: to serve the customers at the lowest cost of all five together."""


def main(argv: list[str] | None = None) -> int:
    with Command("retail/demo.py") as command:
        algorithm = name_of(create_agents, SETTINGS)
        options = parse(command.name, SETTINGS, algorithm, argv, episodes=EPISODES, fast_episodes=FAST_EPISODES)
        run = Run("retail", options, SETTINGS, make_env, command)

        # Five warehouses, and five agents that know nothing of them yet.
        env = run.environment(run.seeds[0])
        agents = run.team(env, run.seeds[0])
        classical = rules(run.unseen)
        own = run.own_rule(from_levels)  # {} without --rule
        run.begin(env, agents, COLUMNS[0], STORY)

        # What do unseen episodes cost under classical rules, and under agents that order anything?
        run.judge_rules(classical | own)
        run.judge_untrained(agents, run.seeds[0])

        # Centralized training: critics that see all warehouses teach actors that see their own.
        run.train(env, agents, run.seeds[0])

        # Decentralized execution, on the same unseen episodes: each agent acts on its own observation.
        run.judge_trained(agents, run.seeds[0])

        # The same algorithm and budget, told after each episode what every action did, in place of the critic's guess.
        if run.has_known_form:
            env = run.environment(run.seeds[0], known=True)
            agents = run.team(env, run.seeds[0], known=True)
            run.train(env, agents, run.seeds[0], known=True)
            run.judge_trained(agents, run.seeds[0], known=True)

        run.beside(BESIDE, classical | own)  # one of these episodes by the rule to beat, or your own
        if run.is_main:  # under torchrun, the first of the processes
            results = run.results(SHARES)
            tell(run, results)
            save_tables(run.folder, results)
            if run.options.plots:
                draw(run, results)
            write_page(run, results)
            run.finish()
    return command.exit_code


if __name__ == "__main__":
    sys.exit(main())
