"""The banking demo: three routers learn to share three payment channels. `python banking/demo.py`, or with `--fast`.

It shows latency, risk and fees before the training, trains, shows them after it on the same unseen episodes, and
compares both with classical routing rules. To see another algorithm, change the import line below or give `--algo`;
what each algorithm is given stands in settings.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

from core.experiment.runs.signals import stop_quietly

if __name__ == "__main__":  # the imports below take a second or two
    stop_quietly()

from banking.own_rule import from_thresholds
from banking.report import BESIDE, COLUMNS, SHARES, draw, save_tables, tell, write_page
from banking.settings import EPISODES, SETTINGS, make_env, rules
from core.experiment.runs.command import Command
from core.experiment.runs.flags import parse
from core.experiment.runs.run import Run
from core.experiment.runs.settings import name_of
from core.mappo import create_mappo_agents as create_agents  # the algorithm: change this line, or give --algo

FAST_EPISODES = 20
STORY = """\
Three routers send 154 transactions a second over three channels. Internal is fast, cheap and risky,
Blockchain slow, dear and safe, and each is a queue that all routers fill. A router sees its own
transactions alone and, at first, sends them anywhere. The aim: fast (100 ms), safe (portfolio risk
below 5 %) and cheap."""


def main(argv: list[str] | None = None) -> int:
    with Command("banking/demo.py") as command:
        algorithm = name_of(create_agents, SETTINGS)
        options = parse(command.name, SETTINGS, algorithm, argv, episodes=EPISODES, fast_episodes=FAST_EPISODES)
        run = Run("banking", options, SETTINGS, make_env, command)

        # Three routers that share three channels, and three agents that know nothing of them yet.
        env = run.environment(run.seeds[0])
        agents = run.team(env, run.seeds[0])
        classical = rules(run.unseen)
        own = run.own_rule(from_thresholds)  # {} without --rule
        run.begin(env, agents, COLUMNS[0], STORY)

        # How do unseen episodes go under classical rules, and under agents that send payments anywhere?
        run.judge_rules(classical | own)
        run.judge_untrained(agents, run.seeds[0])

        # Centralized training: a critic that sees all queues teaches actors that see their own.
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
