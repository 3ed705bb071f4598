"""A run from its flags to its results folder, the same for train.py and demo.py of both problems.

Everything that can be refused is refused before the first episode. Then: evaluate the classical rules and the untrained
team, train, evaluate again on the same unseen episodes, print the comparison, write tables and pictures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.base_agent import AgentTeam
from core.experiment.env_check import check_env
from core.experiment.evaluation import EVALUATION_SEED, VALIDATION_SEED, evaluate, record_episode
from core.experiment.reporting.tables import (
    AFTER,
    BEFORE,
    Gap,
    Results,
    gap_lines,
    policy_table,
    stored_gap,
    summary_table,
)
from core.experiment.runs import distributed
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.runs.flags import Options, Problem, RunError, UsageError
from core.experiment.runs.folders import RunFolder, provenance, require_writable, write_text
from core.experiment.runs.signals import Interrupted, StopSignals
from core.experiment.training import Progress, train

BOUNDS = Path(__file__).resolve().parents[3] / "docs" / "results" / "bounds.csv"
COPIES = 125  # episodes evaluated side by side: more are little faster, and take memory
CURVE_EPISODES = 100  # of each evaluation on the way: enough for a point of the learning curve
CURRICULUM = ((0.5, "hard"), (0.1, "medium"), (0.0, "easy"))  # from this share of the training on
# What config.json holds of the flags. A resumed run takes them from there, unless they are given anew and may be.
STORED = (
    "algo",
    "episodes",
    "seed",
    "seeds",
    "num_envs",
    "difficulty",
    "curriculum",
    "data",
    "eval_every",
    "eval_episodes",
    "save_every",
)
FIXED = ("algo", "seed", "seeds", "num_envs", "difficulty", "curriculum", "data", "config", "set", "fast")


@dataclass
class Run:
    """What the parts of one run share."""

    problem: Problem
    options: Options
    folder: RunFolder
    stop: StopSignals
    evaluation_env: Any
    say: Callable[[str], None]

    @property
    def seeds(self) -> list[int]:
        return self.options.seeds or [self.options.seed]

    @property
    def first(self) -> int:
        """Seed of the first unseen episode."""
        return VALIDATION_SEED if self.options.validation else EVALUATION_SEED

    def evaluate(self, policy: Any, name: str, seed: int | None = None, greedy: bool = True):
        """A row an episode of the unseen episodes, with the policy's name and training seed in front."""
        import pandas as pd

        table = evaluate(self.evaluation_env, policy, self.options.eval_episodes, self.first, greedy=greedy)
        table.insert(0, "policy", name)
        table.insert(1, "training_seed", pd.array([seed] * len(table), dtype="Int64"))
        return table


def run(problem: Problem, options: Options, stop: StopSignals) -> None:
    """Do what the flags say. Raises UsageError, RunError, OSError or Interrupted."""
    device = distributed.start(options.device)
    try:
        prepared = prepare(problem, dataclasses.replace(options, device=device), stop)
        try:
            results = work(prepared)
            if distributed.is_main():
                finish(prepared, results)
        except Interrupted as stopped:
            again = f"continue with: python {problem.name}/train.py --resume {prepared.folder.path}"
            raise Interrupted(stopped.number, f"{stopped.hint}; {again}".removeprefix("; ")) from None
    finally:
        distributed.finish()


def prepare(problem: Problem, options: Options, stop: StopSignals) -> Run:
    """Refuse what can be refused, and make the run's folder."""
    import torch

    main = distributed.is_main()
    options.out = options.out.resolve()  # so that what is printed can be used from any folder
    say = (lambda text: print(text, flush=True)) if main and not options.quiet else (lambda text: None)
    torch.set_num_threads(options.threads)
    old = None
    with refusing(UsageError):
        if options.resume is not None:
            old = RunFolder.find(options.out, options.resume)
            problem, options = reopen(problem, options, old)
            refuse_fewer_episodes(options, old)
        if options.data is not None:
            options.data = str(Path(options.data).resolve())  # to be found again by a resumption from elsewhere
            refuse_beside_data(problem, options)
        options.num_envs = min(options.num_envs or problem.num_envs[options.algo], options.episodes)
        training_env, team = build(problem, options, options.seed)
        check_env(training_env, team)
        team.begin_rollouts(training_env.num_envs)  # refuses what the team cannot learn from
        copies = min(COPIES, options.eval_episodes)
        evaluation_env = problem.make_env(copies, options.difficulty, data=options.data, evaluation=True)
        if options.data is None:  # on the user's data they are tuned first, which takes a minute
            problem.baselines(evaluation_env)
    require_writable(options.out if old is None else old.path)
    name = f"s{'-'.join(map(str, options.seeds))}" if options.seeds else options.seed
    folder = old or RunFolder(distributed.share(RunFolder.create(options.out, options.algo, name).path if main else ""))
    if main and old is None:
        folder.write_config(run_config(problem, options, team))
    prepared = Run(problem, options, folder, stop, evaluation_env, say)
    introduce(prepared, team)
    return prepared


@contextmanager
def refusing(kind: type[Exception]) -> Iterator[None]:
    """What the code inside refuses (ValueError), and files it cannot read, become this kind of error."""
    try:
        yield
    except (ValueError, FileNotFoundError, IsADirectoryError) as error:
        raise kind(str(error)) from error


def build(problem: Problem, options: Options, seed: int) -> tuple[Any, AgentTeam]:
    """The training environment and its untrained team. Raises ValueError for what makes no sense."""
    if "seed" in options.config:
        raise UsageError(f"config['seed'] {options.config['seed']!r} was found: give --seed or --seeds instead")
    first = curriculum_level(0.0) if options.curriculum else options.difficulty
    env = problem.make_env(
        distributed.share_of(options.num_envs), first, seed=seed, data=options.data, **problem.env_options[options.algo]
    )
    return env, build_team(problem, options.algo, env, {**options.config, "seed": seed}, options.device)


def build_team(problem: Problem, algo: str, env: Any, changes: dict[str, Any], device: str | None = None) -> AgentTeam:
    """The untrained team of this problem's settings, with `changes` to them, for the environment."""
    config = {"action_type": "discrete" if env.discrete_actions else "continuous", "state_size": env.state_size}
    config |= getattr(env, "hyperparameters", {})  # those that go with the size of what was recorded
    config |= {**problem.configs[algo], **changes}
    sizes = env.observation_space_size, env.action_space_size, env.num_agents
    return problem.algorithms[algo](*sizes, config=config, device=device)


def curriculum_level(fraction: float) -> str:
    """The difficulty that `--curriculum` trains on once this share of the training is done."""
    return next(name for share, name in CURRICULUM if fraction >= share)


def run_config(problem: Problem, options: Options, team: AgentTeam) -> dict[str, Any]:
    """All that is needed to repeat a run, for config.json."""
    hyperparameters = dataclasses.asdict(team.config)
    del hyperparameters["seed"]  # it is that of the run
    return {
        "problem": problem.name,
        **{name: getattr(options, name) for name in STORED},
        "data_sha256": fingerprint(options.data),
        "validation": options.validation,
        "device": str(team.device),
        "threads": options.threads,
        "env_options": dict(problem.env_options[options.algo]),
        "hyperparameters": hyperparameters,
        **provenance(),
    }


def reopen(problem: Problem, options: Options, folder: RunFolder) -> tuple[Problem, Options]:
    """The problem and the options of an earlier run, so that it goes on exactly as it began."""
    try:
        config = folder.read_config()
        stored = {name: config[name] for name in STORED}
        algo, hyperparameters, env_options = config["algo"], config["hyperparameters"], config["env_options"]
        name = config["problem"]
    except KeyError as error:
        raise RunError(f"{folder.path}: config.json has no entry {error}; it is of no run of this version") from None
    except ValueError as error:
        raise RunError(str(error)) from None
    if name != problem.name:
        raise UsageError(f"{folder.path} is a {name} run: resume it with {name}/train.py")
    for name in FIXED:
        if name in options.given and (name not in stored or getattr(options, name) != stored[name]):
            flag = "--" + name.replace("_", "-")
            began = f"the run began with {stored[name]!r}" if name in stored else "a resumed run keeps its own"
            raise UsageError(f"{flag} together with --resume: {began}; leave {flag} out, or start a new run")
    if config.get("data_sha256") != fingerprint(stored["data"]):
        raise UsageError(f"{stored['data']} has changed since the run began: put the old file back, or start a new run")
    stored["validation"] = config.get("validation", False)
    kept = {name: value for name, value in stored.items() if name not in options.given}
    problem = dataclasses.replace(problem, configs={algo: hyperparameters}, env_options={algo: env_options})
    return problem, dataclasses.replace(options, **kept)


def refuse_beside_data(problem: Problem, options: Options) -> None:
    """Raise UsageError for a flag that the user's own data leave without a meaning."""
    reasons = {"curriculum": "your data are as hard as they are", "validation": "your newest data are the test"}
    if not problem.data_difficulty:
        reasons["difficulty"] = reasons["curriculum"]
    for name, reason in reasons.items():
        if name in options.given and getattr(options, name):
            raise UsageError(f"--{name} together with --data: {reason}; leave it out")


def refuse_fewer_episodes(options: Options, folder: RunFolder) -> None:
    """Raise UsageError if a training of the run has more episodes already than it shall have in the end."""
    for table in folder.path.glob("**/progress.csv"):
        done = sum(1 for _ in open(table, encoding="utf-8")) - 1
        if done > options.episodes:
            raise UsageError(f"--episodes {options.episodes}: {table.parent} has {done} already; give no less")


def fingerprint(path: str | None) -> str | None:
    """What tells one content of a file from another."""
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def episodes_of(options: Options) -> str:
    """Which episodes policies are judged on, in words."""
    if options.data is not None:
        return "of the test part of your data"
    return options.difficulty + (", validation" if options.validation else "")


def introduce(run: Run, team: AgentTeam) -> None:
    """Say what will happen, and what is in the user's data."""
    problem, options = run.problem, run.options
    if options.demo:
        run.say(problem.story)
    if options.data is not None and problem.data_report is not None and distributed.is_main():
        report = problem.data_report(options.data) + "\n"
        write_text(run.folder.path / "data_report.txt", report)
        run.say(report)
    who = f"{options.algo.upper()} trains {options.episodes} episodes"
    how = f"{options.num_envs} at a time, on {team.device}" + (", easy to hard" if options.curriculum else "")
    seeds = f"for each of the seeds {', '.join(map(str, run.seeds))}" if options.seeds else f"seed {options.seed}"
    run.say(f"{who} ({how}, {seeds}).")
    run.say(f"Everybody is judged on the same {options.eval_episodes} unseen episodes ({episodes_of(options)}).")
    run.say(f"Results go to {run.folder.path}\n")


# --- evaluate, train, evaluate ----------------------------------------------------------------------------------------


def work(run: Run) -> Results | None:
    """Evaluate, train each seed, evaluate again. The first process returns the results, the others None."""
    import pandas as pd
    from tqdm import tqdm

    main, started = distributed.is_main(), time.perf_counter()
    tables = []
    if main:
        if run.options.data is not None:
            run.say("The classical rules are tuned on the training part of your data, for about a minute ...")
        rules = run.problem.baselines(run.evaluation_env)
        bar = tqdm(rules.items(), "classical rules", leave=False, disable=True if run.options.quiet else None)
        tables = [run.evaluate(rule, name) for name, rule in bar]
        run.say(f"{len(tables)} classical rules evaluated in {time.perf_counter() - started:.0f} s")
    histories, steps = {}, []
    for seed in run.seeds:
        env, team = build(run.problem, run.options, seed)
        if main:
            tables.append(run.evaluate(team, BEFORE, seed, greedy=False))
            say_metric(run, f"before training (seed {seed})", tables[-1])
        histories[seed] = train_seed(run, env, team, seed)
        if main:
            tables.append(run.evaluate(team, AFTER, seed))
            say_metric(run, f"after training (seed {seed}, {histories[seed]['seconds'].iloc[-1]:.0f} s)", tables[-1])
            if not steps:
                single = run.problem.make_env(difficulty=run.options.difficulty, data=run.options.data, evaluation=True)
                steps = record_episode(single, team, run.first)
    if not main:
        return None
    report = run.problem.report
    evaluation = pd.concat(tables, ignore_index=True)
    return Results(run.options.algo, run.options.episodes, histories, evaluation, steps, report.labels, report.weights)


def train_seed(run: Run, env: Any, team: AgentTeam, seed: int):
    """Train one seed, from its checkpoint if there is one -> history. Raises Interrupted when a signal stopped it."""
    options, stop = run.options, run.stop
    folder = seed_folder(run, seed)
    resume = None
    if options.resume is not None:
        resume = read_checkpoint(run, folder)
    every = max(1, options.episodes // 10)
    eval_every = every if options.eval_every is None else options.eval_every

    def look():
        return evaluate(run.evaluation_env, team, min(CURVE_EPISODES, options.eval_episodes), run.first)

    def set_difficulty(progress: Progress) -> None:
        env.set_difficulty(curriculum_level(progress.fraction))

    try:
        with stop.patiently():
            history = train(
                env,
                team,
                options.episodes,
                seed,
                run=folder,
                evaluate_every=eval_every,
                evaluation=look if eval_every else None,
                save_every=every if options.save_every is None else options.save_every,
                resume=resume,
                on_round=set_difficulty if options.curriculum else None,
                stop=lambda: stop.requested is not None,
                progress=False if options.quiet else run.problem.report.metric,
            )
    except (ValueError, FloatingPointError) as error:
        raise RunError(str(error)) from error
    if stop.requested is not None:
        raise Interrupted(stop.requested, f"{len(history)} of {options.episodes} episodes are saved")
    return history


def read_checkpoint(run: Run, folder: RunFolder) -> dict[str, Any] | None:
    """The state to continue from; None when the run was stopped before its first checkpoint."""
    try:
        saved = load_checkpoint(folder.checkpoint)
    except FileNotFoundError:
        run.say(f"{folder.path.name}: stopped before its first checkpoint, so it starts from the beginning")
        return None
    except ValueError as error:
        raise RunError(str(error)) from None
    done = len(saved["history"]["values"]) if "history" in saved else 0
    if done > run.options.episodes:
        raise UsageError(f"--episodes {run.options.episodes}: {folder.path.name} has {done} already; give no less")
    run.say(f"{folder.path.name}: {done} of {run.options.episodes} episodes were done before")
    return saved


def seed_folder(run: Run, seed: int) -> RunFolder:
    """Where one training saves: the run's folder, or one in it for each of several seeds."""
    if not run.options.seeds:
        return run.folder
    folder = RunFolder(run.folder.path / f"seed{seed}")
    if distributed.is_main():
        folder.path.mkdir(exist_ok=True)
    return folder


def columns_of(run: Run) -> tuple[tuple[str, str, str], ...]:
    """The columns of the printed table; the first one is what the problem is about."""
    report = run.problem.report
    return report.columns if run.options.data is None else report.data_columns or report.columns


def gap_of(run: Run, results: Results) -> Gap | None:
    """From the plain rule to the stored bound, where there is one for these episodes."""
    if run.options.data is not None or run.options.validation or run.problem.report.gap is None:
        return None
    plain, metric = run.problem.report.gap
    means = {rule: results.mean(rule, metric) for rule in results.baselines}
    return stored_gap(BOUNDS, run.problem.name, run.options.difficulty, plain, means)


def say_metric(run: Run, when: str, table: Any) -> None:
    header, metric, number = columns_of(run)[0]
    run.say(f"{when}: {header} {number.format(table[metric].mean())}")


# --- results ----------------------------------------------------------------------------------------------------------


def finish(run: Run, results: Results) -> None:
    """Print the comparison, and write tables and pictures."""
    report, folder = run.problem.report, run.folder
    folder.write_table("evaluation", results.evaluation)
    folder.write_table("summary", summary_table(results))
    folder.write_table(report.steps_name, report.steps_table(results.steps))
    over = f"over {len(run.seeds)} training seeds" if run.options.seeds else "over the episodes"
    over += "" if run.options.data is None else ". They hold for this test period, not for others"
    run.say(
        f"\n{results.evaluated} unseen episodes ({episodes_of(run.options)}): mean ± half the 95 % interval; "
        f"of {BEFORE.upper()} and {AFTER.upper()} {over}\n"
    )
    gap = gap_of(run, results)
    run.say(policy_table(results, columns_of(run), gap) + "\n")
    if gap is not None:
        run.say(
            f"Gap closed: 0 % is {report.gap[0]}, 100 % the clairvoyant bound, which nobody can beat: "
            f"{gap.bound:.4g} ± {gap.half_width:.2g} (docs/BENCHMARKS.md, section 1).\n"
        )
    run.say("After training (paired on the same episodes, ± half the 95 % interval):")
    for line in gap_lines(results, report.rivals, report.gaps):
        run.say(f"  {line}")
    if run.options.data is not None and run.problem.data_warning is not None:
        caution = run.problem.data_warning(run.options.data)
        run.say(f"\nCAUTION: {caution}" if caution else "")
    if run.options.plots:
        report.draw(folder.path, results)
    print(folder.path if run.options.quiet else f"\nResults: {folder.path}\n", flush=True)
