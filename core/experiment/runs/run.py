"""One run, as a script works on it: its folder, the episodes that judge its policies, its trainings and its results.

The scripts tell the story; a `Run` does what every story needs: it refuses what can be refused before anything is
written, gives every policy the same unseen episodes, saves, and goes on after a stop.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.base_agent import AgentTeam
from core.experiment.env_check import check_env
from core.experiment.evaluation import evaluate, record_episode
from core.experiment.imitation import imitate
from core.experiment.reporting.tables import AFTER, BEFORE, CURVE_EPISODES, KNOWN, OWN
from core.experiment.runs import distributed
from core.experiment.runs.command import Command, RunError, UsageError
from core.experiment.runs.flags import Options
from core.experiment.runs.folders import ROOT, RunFolder, printable, provenance, require_writable, write_text
from core.experiment.runs.own_rule import load_rule
from core.experiment.runs.resume import STORED, fingerprints, read_checkpoint, reopen, require_same_world, world_sha256
from core.experiment.runs.settings import Setting, curriculum_level
from core.experiment.runs.signals import Interrupted
from core.experiment.training import train
from core.experiment.tuning import EVALUATION_SEED, VALIDATION_SEED

COPIES = 125  # episodes evaluated side by side: more are little faster, and take memory


class Run:
    """What the steps of a script share.

    Args:
        problem: "retail" or "banking": the folder of the script.
        options: the flags; of a resumed run, those that it began with are taken from its folder.
        settings: an entry an algorithm.
        make_env: (num_envs, difficulty, seed, data, evaluation, **options) -> an environment.
        command: the command line that this run belongs to.

    Attributes:
        options: the flags as they count for this run.
        unseen: the environment whose episodes judge everybody.
        folder: where the results go.
    """

    def __init__(
        self,
        problem: str,
        options: Options,
        settings: Mapping[str, Setting],
        make_env: Callable[..., Any],
        command: Command,
    ):
        import torch

        self.problem, self.command, self.make_env = problem, command, make_env
        torch.set_num_threads(options.threads)
        device = distributed.start(options.device)
        options = dataclasses.replace(options, device=device, out=options.out.resolve())
        self.folder: RunFolder | None = None
        if options.resume is not None:
            self.folder = RunFolder.find(options.out, options.resume)
            if distributed.is_main():
                self.folder.lock()
                command.at_exit.callback(self.folder.unlock)
            options = reopen(problem, settings, options, self.folder)
            torch.set_num_threads(options.threads)
        if options.data is not None:  # in full, to be found again by a resumption from elsewhere
            options = dataclasses.replace(options, data=str(Path(options.data).resolve()))
        num_envs = min(options.num_envs or options.setting.num_envs, options.episodes)
        self.options = options = dataclasses.replace(options, num_envs=num_envs)
        if options.plots:
            _require_matplotlib()
        copies = min(COPIES, options.eval_episodes)
        self.unseen = make_env(copies, options.difficulty, data=options.data, evaluation=True)
        if options.resume is not None:
            require_same_world(self.folder, self.unseen.world())
        self.first_seed = VALIDATION_SEED if options.validation else EVALUATION_SEED  # of the first unseen episode
        self._tables: list[Any] = []
        self._periods: list[Any] = []  # of recorded data, a table a policy and training: what each period cost
        self._histories: dict[bool, dict[int, Any]] = {False: {}, True: {}}  # known form? -> seed -> history
        self._recorded: dict[str, list[dict[str, Any]]] = {}  # trained form -> one evaluated episode, step by step
        self._rules: Mapping[str, Any] = {}  # those that were judged
        self._beside: tuple[str, list[dict[str, Any]]] = "", []  # a rule, and its steps of that episode

    # --- before anything is written -----------------------------------------------------------------------------------

    @property
    def seeds(self) -> list[int]:
        """Of the trainings, in turn."""
        return self.options.seeds or [self.options.seed]

    @property
    def is_main(self) -> bool:
        """False in all processes but the first, which alone judges, prints and writes."""
        return distributed.is_main()

    @property
    def has_known_form(self) -> bool:
        """The algorithm can also learn from known consequences on this problem (see `Setting.known`)."""
        return self.options.setting.known is not None

    def environment(self, seed: int, known: bool = False) -> Any:
        """The environment of one training; `known`: it hands over the consequences of every action."""
        options, setting = self.options, self.options.setting.known if known else self.options.setting
        first = curriculum_level(0.0) if options.curriculum else options.difficulty
        copies = distributed.share_of(options.num_envs)
        try:
            return self.make_env(copies, first, seed=seed, data=options.data, **setting.env)
        except TypeError as error:  # of an env_options that somebody edited
            raise ValueError(f"env_options {dict(setting.env)}: {error}") from error

    def team(self, env: Any, seed: int, known: bool = False) -> AgentTeam:
        """The untrained team of one training, made by the factory that the script imports, or by that of `--algo`."""
        setting, changes = self.options.setting, self.options.config
        if known:  # its own hyper-parameters: what the user changed is of the documented form
            setting, changes = setting.known, {}
        return setting.team(env, {**changes, "seed": seed}, self.options.device)

    def own_rule(self, from_numbers: Callable[[Any, dict[str, Any]], Any]) -> dict[str, Any]:
        """The user's own rule (--rule) by its name in the tables; {} without. from_numbers: as in `load_rule`.

        Raises UsageError for a rule that cannot be followed.
        """
        rule = self.options.rule
        return {} if rule is None else {OWN: load_rule(rule, self.unseen, from_numbers)}

    def begin(self, env: Any, agents: AgentTeam, headline: tuple[str, str, str], story: str = "") -> None:
        """Look at the environment and the team, make the folder, tell the story and what will be done.

        Args:
            headline: (header, metric, number format) of what the problem is about; shown on the way.

        Raises:
            ValueError: an environment or a team that cannot be trained.
            OSError: results cannot be written.
        """
        self.headline = headline
        check_env(env, agents)
        agents.begin_rollouts(env.num_envs)  # refuses what the team cannot learn from
        options = self.options
        require_writable(options.out if self.folder is None else self.folder.path)
        if self.is_main and self.folder is None:
            name = f"s{'-'.join(map(str, options.seeds))}" if options.seeds else options.seed
            self.folder = RunFolder.create(options.out, options.algo, name, self._config(agents))
            self.command.at_exit.callback(self.folder.unlock)
        elif self.is_main:  # what was given anew counts for the next resumption too
            self.folder.write_config(self.folder.read_config() | self._stored(agents) | {"rule": options.rule})
        path = distributed.share(self.folder.path if self.is_main else "")
        self.folder = self.folder if self.is_main else RunFolder(path)
        self.command.again = f"continue with: {self._again()}"
        self.command.begin_work()
        self.say(story)
        self._introduce(agents)

    def say(self, text: str) -> None:
        """Print, unless --quiet, from the first process. A reader that has gone is no reason to stop."""
        if not self.is_main or self.options.quiet:
            return
        try:
            print(printable(text), flush=True)
        except OSError:
            self.options = dataclasses.replace(self.options, quiet=True)

    # --- the steps of a story -----------------------------------------------------------------------------------------

    def judge_rules(self, rules: Mapping[str, Any]) -> None:
        """Every classical rule on the unseen episodes."""
        from tqdm import tqdm

        if not self.is_main:
            return
        started, self._rules = time.perf_counter(), rules
        for name, rule in tqdm(rules.items(), "classical rules", leave=False, disable=self.options.quiet or None):
            self._judge(rule, name)
        self.say(f"{len(rules)} classical rules evaluated in {time.perf_counter() - started:.0f} s")

    def judge_untrained(self, agents: AgentTeam, seed: int) -> None:
        """The team before its training, drawing its actions, as it would begin to explore."""
        if self.is_main:
            self._judge(agents, BEFORE, seed, greedy=False)
            self._say_headline(f"before training (seed {seed})")

    def judge_trained(self, agents: AgentTeam, seed: int, known: bool = False) -> None:
        """The team after its training, greedy; and one of its episodes, step by step."""
        if not self.is_main:
            return
        name = KNOWN if known else AFTER
        self._judge(agents, name, seed)
        self._say_headline(f"{name} (seed {seed}, {self._seconds:.0f} s)")
        if name not in self._recorded:
            self._recorded[name] = self._record(agents)

    def beside(self, name: str, rules: Mapping[str, Any]) -> None:
        """The recorded episode once more, by the user's own rule if there is one, else by the named one."""
        if self.is_main:
            name = OWN if OWN in rules else name
            self._beside = name, self._record(rules[name])

    def require_start(self, rules: Mapping[str, Any] | None) -> None:
        """Refuse a `--start-from` that is none of the `rules`, if they are known already."""
        name = self.options.start_from
        if name is not None and rules is not None and name not in rules:
            missing = "give it by --rule too" if name == OWN else f"there are {', '.join(map(repr, rules))}"
            raise UsageError(f"--start-from {name!r}: it is no rule here; {missing}")

    def train(
        self, env: Any, agents: AgentTeam, seed: int, known: bool = False, rules: Mapping[str, Any] | None = None
    ) -> Any:
        """Train one team, from its checkpoint if there is one -> history.

        Args:
            known: as in `environment`.
            rules: what `--start-from` may name.

        Raises:
            Interrupted: a signal stopped it; what was done is saved.
            ValueError, FloatingPointError: it cannot go on; what was saved before is left as it is.
        """
        options, stop, folder = self.options, self.command.stop, self._folder_of("known" if known else seed)
        resume = None if options.resume is None else read_checkpoint(folder, options.episodes, self.say)
        every = max(1, options.episodes // 10)
        eval_every = every if options.eval_every is None else options.eval_every

        done, started = 0, time.perf_counter()

        def begin_round(now: Any) -> None:
            nonlocal done
            done = min(now.episodes + options.num_envs, options.episodes)  # when the round is over
            if options.curriculum:
                env.set_difficulty(curriculum_level(now.fraction))

        def look() -> Any:
            table = evaluate(self.unseen, agents, min(CURVE_EPISODES, options.eval_episodes), self.first_seed)
            if not sys.stderr.isatty():  # no bar is shown: a line tells that it goes on
                header, metric, number = self.headline
                how = f"{header} {number.format(table[metric].mean())} on {len(table)} unseen episodes"
                self.say(f"  {done} of {options.episodes} episodes, {time.perf_counter() - started:.0f} s: {how}")
            return table

        with stop.patiently():
            if resume is None and options.start_from is not None:
                self.require_start(rules)
                self.say(f"The actors copy {options.start_from} first ...")
                imitate(env, agents, rules[options.start_from], seed)
                if self.is_main:
                    self.say(f"the copy: {self.headline[0]} {self.headline[2].format(look()[self.headline[1]].mean())}")
            history = train(
                env,
                agents,
                options.episodes,
                seed,
                run=folder,
                evaluate_every=eval_every,
                evaluation=look if eval_every else None,
                save_every=every if options.save_every is None else options.save_every,
                resume=resume,
                on_round=begin_round,
                stop=lambda: stop.requested is not None,
                progress=False if options.quiet else self.headline[1],
            )
        if stop.requested is not None:
            raise Interrupted(stop.requested, f"{len(history)} of {options.episodes} episodes are saved")
        self._seconds = history["seconds"].iloc[-1]
        self._histories[known][seed] = history
        return history

    def results(self, weights: Mapping[str, str]) -> Any:
        """Everything that was judged and trained, as `reporting.tables.Results`."""
        import pandas as pd

        from core.experiment.reporting.tables import Results

        evaluation = pd.concat(self._tables, ignore_index=True)
        options, world = self.options, self.unseen.world()
        rules = self._rules.items()
        more = {"levels": {name: rule.levels(world["agents"]) for name, rule in rules if hasattr(rule, "levels")}}
        more |= {"all_seeing": [name for name, rule in rules if getattr(rule, "needs_env", False)]}
        more |= {"by_period": pd.concat(self._periods, ignore_index=True) if self._periods else None}
        more |= {"period": "week" if world.get("days") == 7 else "day"}
        histories, known = self._histories[False], self._histories[True]
        found = Results(options.algo, options.episodes, histories, evaluation, (), weights, known, *self._beside)
        more |= {"plays": options.setting.known.config.get("plays", 1)} if self.has_known_form else {}
        return dataclasses.replace(found, steps=self._recorded[found.trained[0]], **more)

    def write(self, name: str, text: str) -> None:
        """A text file in the run's folder."""
        if self.is_main:
            write_text(self.folder.path / name, text)

    def judged_on(self) -> str:
        """Which episodes policies are judged on, in words."""
        if self.options.data is not None:
            _, first, last = self.unseen.world()["since"]
            return f"of the test part of your data, {first} to {last}"
        return self.options.difficulty + (", validation" if self.options.validation else "")

    def finish(self) -> None:
        """Say where everything is, what to open, and what to do next."""
        if not self.is_main:
            return
        if self.options.quiet:
            print(self.folder.path, flush=True)
            return
        path = self.folder.path
        name = path.name if path.parent == (ROOT / self.problem / "results").resolve() else shlex.quote(str(path))
        asked = [f"main.py --play {name}", *([] if self.options.data else [f"main.py --what-if {name}"])]
        asked += [f"{self.problem}/decide.py {name} --example inputs.csv", f"main.py --export {name} --to FOLDER"]
        lines = ["", f"Results: {path}", "Open report.html there. Next:", *(f"  python {words}" for words in asked)]
        if self.options.fast:
            lines += ["This was a rehearsal (--fast): its team learnt from a fraction of the episodes and is not good"]
            lines += ["yet. Leave --fast out for the figures of the README."]
        self.say("\n".join([*lines, ""]))

    # --- what they need -----------------------------------------------------------------------------------------------

    def _judge(self, policy: Any, name: str, seed: int | None = None, greedy: bool = True) -> None:
        import pandas as pd

        table = evaluate(self.unseen, policy, self.options.eval_episodes, self.first_seed, greedy=greedy)
        periods = table.attrs.pop("periods", None)
        if periods is not None:
            self._periods.append(periods.assign(policy=name, training_seed=np.nan if seed is None else seed))
        table.insert(0, "policy", name)
        table.insert(1, "training_seed", pd.array([seed] * len(table), dtype="Int64"))
        self._tables.append(table)

    def _record(self, policy: Any) -> list[dict[str, Any]]:
        """The first unseen episode, step by step."""
        single = self.make_env(difficulty=self.options.difficulty, data=self.options.data, evaluation=True)
        return record_episode(single, policy, self.first_seed)

    def _say_headline(self, when: str) -> None:
        header, metric, number = self.headline
        self.say(f"{when}: {header} {number.format(self._tables[-1][metric].mean())}")

    def _folder_of(self, training: int | str) -> RunFolder:
        """Where one training saves: the run's folder, or one in it for each of several seeds, and for `known`."""
        if not self.options.seeds and training != "known":
            return self.folder
        folder = RunFolder(self.folder.path / (f"seed{training}" if isinstance(training, int) else training))
        if self.is_main:
            folder.path.mkdir(exist_ok=True)
        return folder

    def _again(self) -> str:
        """The command line that goes on with this run, for the folder and the Python that this one was started in."""
        options, script = self.options, self.command.name
        words = [*distributed.launcher(), script if Path.cwd() == ROOT else str(ROOT / script)]
        words += ["--resume", str(self.folder.path)]
        words += ["--rule", options.rule] if options.rule else []  # config.json names it, but does not have it run
        words += [flag for flag, given in {"--quiet": options.quiet, "--no-plots": not options.plots}.items() if given]
        return shlex.join(words)

    def _stored(self, agents: AgentTeam) -> dict[str, Any]:
        return {name: getattr(self.options, name) for name in STORED} | {"device": str(agents.device)}

    def _config(self, agents: AgentTeam) -> dict[str, Any]:
        """All that is needed to repeat a run, for config.json."""
        hyperparameters = dataclasses.asdict(agents.config)
        del hyperparameters["seed"]  # it is that of the run
        return {
            "problem": self.problem,
            "rule": self.options.rule,  # to be read, never to be run: a resumed run names it anew
            **self._stored(agents),
            "data_sha256": fingerprints(self.options.data),
            "world": self.unseen.world(),
            "world_sha256": world_sha256(self.unseen.world()),
            "env_options": dict(self.options.setting.env),
            "hyperparameters": hyperparameters,
            **provenance(),
        }

    def _introduce(self, agents: AgentTeam) -> None:
        options = self.options
        who = f"{options.algo.upper()} trains {options.episodes} episodes"
        how = f"{options.num_envs} at a time, on {agents.device}" + (", easy to hard" if options.curriculum else "")
        seeds = f"for each of the seeds {', '.join(map(str, self.seeds))}" if options.seeds else f"seed {options.seed}"
        self.say(f"{who} ({how}, {seeds}).")
        self.say(f"Everybody is judged on the same {options.eval_episodes} unseen episodes ({self.judged_on()}).")
        could = options.credit == "known" or self.has_known_form
        if options.data is not None and options.start_from is None and could:
            self.say('On your own data begin with a rule, --start-from "RULE": this team begins with nothing.')
        self.say(f"Results go to {self.folder.path}\n")


def _require_matplotlib() -> None:
    """Before the training, not after it."""
    try:
        import matplotlib.pyplot  # noqa: F401
    except Exception as error:  # whatever a broken installation raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RunError(f"matplotlib cannot be loaded ({reason}): install it again, or give --no-plots") from error
