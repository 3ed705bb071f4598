"""Classical inventory rules for MultiWarehouseEnv, tuned as hard as the learner, and what a clairvoyant could reach.

    python retail/baselines.py --tune                     # all difficulties -> retail/tuned_baselines.json
    python retail/baselines.py --evaluate --episodes 2000 # the table, 95 % intervals, seeds 10000...

Every rule decides like an agent: warehouse i from its own observation alone, read back into units. `baselines` returns
them by name as callables on (N, 14) or (E, N, 14) observations. The clairvoyant bound is no rule: it is the optimum
of a linear programme that knows the whole episode, so that no policy, decentralized or not, can cost less.
"""

from __future__ import annotations

import argparse
import copy
import csv
import difflib
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from core.experiment.tuning import EVALUATION_SEED, TUNING_SEED, cross_entropy, rounded, student_t_quantile  # noqa: E402
from retail.clairvoyant import clairvoyant_bound  # noqa: E402
from retail.constants import DIFFICULTIES  # noqa: E402
from retail.environment import OBSERVATION_NAMES, MultiWarehouseEnv  # noqa: E402

TUNED_FILE = Path(__file__).with_name("tuned_baselines.json")
RULES = {  # key in the file -> name in tables
    "newsvendor": "base-stock, newsvendor",
    "base_stock_alone": "base-stock, tuned alone",
    "base_stock_joint": "base-stock, tuned jointly",
    "s_S_joint": "(s, S), tuned jointly",
    "adaptive_alone": "adaptive base-stock, tuned alone",
    "adaptive_joint": "adaptive base-stock, tuned jointly",
}
MEANING = {  # of a rule's numbers; the position is what is on the shelf and under way
    "level": "units; order every period what the position lacks to this level",
    "min": "units; order once the position is at or below it",
    "max": "units; order up to it",
    "gap": "units; order only once the position is so far below the level",
    "average_factor": "periods; this times the moving average of demand is added to the level",
}
PARAMETERS = ("level", "gap", "mean_factor", "average_factor")  # of `order_up_to`
_ON_HAND, _PIPELINE, _AVERAGE = (OBSERVATION_NAMES.index(k) for k in ("on_hand/4s", "pipeline/4s", "demand_average/s"))

Policy = Callable[[np.ndarray], np.ndarray]


# ------------------------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True)
class OrderUpTo:
    """Order up to base + factor · (demand average), if the inventory position has fallen to `reorder` or below.

    factor 0 and no reorder point: the base-stock rule; a reorder point: (s, S); factor > 0: adaptive base-stock.
    Fields are (N,) arrays in units (factor: periods of demand), scale is the mean of mean_demand.
    """

    base: np.ndarray
    factor: np.ndarray
    reorder: np.ndarray
    order_limit: np.ndarray
    scale: float

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Observations (..., N, 14) -> orders (..., N, 1) as shares of order_limit, row i from observation i."""
        own = np.asarray(observations, dtype=float) * self.scale
        position = 4.0 * (own[..., _ON_HAND] + own[..., _PIPELINE])  # (..., N) inventory position, units
        missing = self.base + self.factor * own[..., _AVERAGE] - position  # (RETAIL-3)
        order = np.where(position <= self.reorder, missing, 0.0) / self.order_limit
        return np.clip(order, 0.0, 1.0)[..., None]

    def levels(self, names: list[str]) -> dict[str, Any]:
        """The numbers of the rule by warehouse, as `--rule` takes them (see MEANING)."""
        if not np.isfinite(self.reorder).all():
            adaptive = {"average_factor": rounded(self.factor, names)} if self.factor.any() else {}
            return {"level": rounded(self.base, names)} | adaptive
        if self.factor.any():
            gap = rounded(self.base - self.reorder, names)
            return {"level": rounded(self.base, names), "gap": gap, "average_factor": rounded(self.factor, names)}
        return {"min": rounded(self.reorder, names), "max": rounded(self.base, names)}


def order_up_to(env: MultiWarehouseEnv, parameters: dict[str, Any]) -> OrderUpTo:
    """Parameters by name, (N,) lists or one number each -> rule. Units, but for `mean_factor` and `average_factor`.

    level: base-stock level. gap: (s, S), orders only once the position is `gap` below the level.
    mean_factor A and average_factor B: the adaptive level A · mean_demand + B · demand average.

    Raises ValueError for a parameter of another name: without its level, a rule would silently never order.
    """
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), PARAMETERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"give any of {', '.join(PARAMETERS)}"
        raise ValueError(f"a rule has no parameter {unknown[0]!r}; {hint}")
    c, n = env.constants, env.num_agents
    known = {name: np.broadcast_to(np.asarray(values, dtype=float), (n,)) for name, values in parameters.items()}
    means = np.asarray(c.mean_demand, dtype=float)
    base = known.get("level", 0.0) + known.get("mean_factor", 0.0) * means
    return OrderUpTo(
        base=np.broadcast_to(base, (n,)),
        factor=known.get("average_factor", np.zeros(n)),
        reorder=base - known["gap"] if "gap" in known else np.full(n, np.inf),
        order_limit=np.broadcast_to(np.asarray(c.order_limit, dtype=float), (n,)),
        scale=float(means.mean()),
    )


@dataclass
class UniformRandom:
    """Orders drawn uniformly from [0, 1], a new stream of `seed` in every object."""

    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return self._rng.random((*np.shape(observations)[:-1], 1))


@dataclass(frozen=True)
class Constant:
    """The same order every period, whatever happens."""

    action: float

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return np.full((*np.shape(observations)[:-1], 1), self.action)


def baselines(
    env_or_difficulty: MultiWarehouseEnv | str = "medium", parameters: dict[str, dict] | None = None, seed: int = 0
) -> dict[str, Policy]:
    """All rules by name. Their constants come from retail/tuned_baselines.json, or from `parameters` (see `tune`).

    Raises ValueError for a number of warehouses the constants were not tuned for.
    """
    named = isinstance(env_or_difficulty, str)
    env = MultiWarehouseEnv(env_or_difficulty) if named else env_or_difficulty
    parameters = tuned_parameters(env.difficulty) if parameters is None else parameters
    for key, values in parameters.items():
        for name, numbers in values.items():
            if np.size(numbers) not in (1, env.num_agents):
                raise ValueError(
                    f"{name} of {key!r} is tuned for {np.size(numbers)} warehouses, the environment has "
                    f"{env.num_agents}: pass parameters=tune(...) with the constants of this environment"
                )
    rules: dict[str, Policy] = {"random": UniformRandom(seed), "constant 0.5": Constant(0.5)}
    return rules | {RULES[key]: order_up_to(env, parameters[key]) for key in RULES if key in parameters}


def tuned_parameters(difficulty: str = "medium") -> dict[str, dict[str, list[float]]]:
    """Rule key (see RULES) -> parameters, as tuned by `--tune` for this difficulty."""
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty is {difficulty!r}: choose one of {', '.join(DIFFICULTIES)}")
    stored = json.loads(TUNED_FILE.read_text(encoding="utf-8")) if TUNED_FILE.exists() else {}
    if difficulty not in stored:
        raise ValueError(f"no rule is tuned for {difficulty!r}: run python retail/baselines.py --tune {difficulty}")
    return stored[difficulty]["parameters"]


# ---------------------------------------------------------------------------------------------------------- tuning


def run_policy(env: MultiWarehouseEnv, policy: Policy, observations: np.ndarray) -> dict[str, np.ndarray]:
    """One episode in each copy of a stacked env, on from the observations (E, N, 14) of its reset -> figures by name.

    cost, unmet, demand: (E, N) sums over the episode; and the environment's episode metrics, (E,) each.
    """
    sums: dict[str, Any] = dict(cost=0.0, unmet=0.0, demand=0.0)
    for _ in range(env.constants.horizon):
        observations, _, _, info = env.step(policy(observations))
        for name in sums:
            sums[name] = sums[name] + info["details"][name]
    return info["episode_metrics"] | sums


def newsvendor_levels(env: MultiWarehouseEnv, seed: int = TUNING_SEED) -> np.ndarray:
    """(N,) base-stock levels: the p/(p + h) quantile of demand over lead time + 1 periods (Arrow et al. 1951).

    In the textbook's form, with the normal quantile; the true distribution has a longer tail. Sets env to new episodes.
    """
    c = env.constants
    env.reset(seed)
    demand = np.stack([env.episode(e).demand for e in range(env.num_envs)])  # (E, T, N)
    running = np.concatenate([np.zeros_like(demand[:, :1]), demand.cumsum(axis=1)], axis=1)
    z = NormalDist().inv_cdf(c.stockout_cost / (c.stockout_cost + c.holding_cost))  # (RETAIL-2)
    spans = np.broadcast_to(np.asarray(c.lead_times), (env.num_agents,)) + 1
    windows = (running[:, k:, i] - running[:, :-k, i] for i, k in enumerate(spans))
    return np.array([window.mean() + z * window.std() for window in windows])


def tune(
    difficulty: str = "medium",
    *,
    episodes: int = 1000,
    population: int = 48,
    iterations: int = 40,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    **constants: Any,
) -> dict[str, dict[str, list[float]]]:
    """Tune every rule on the same `episodes` episodes (tuning seeds) -> rule key -> parameters, for `baselines`.

    Alone: each warehouse minimises its own cost as if it had the supplier to itself and no neighbours. Jointly: all
    parameters together minimise the team's cost in the real environment. constants: of MultiWarehouseEnv.
    """
    joint = MultiWarehouseEnv(difficulty, num_envs=episodes, **constants)
    n, limit = joint.num_agents, np.max(joint.constants.order_limit)
    apart = dict(constants, supplier_capacity=float(n * limit), lane_limit=0.0)
    alone = MultiWarehouseEnv(difficulty, num_envs=episodes, **apart)

    def judge(env: MultiWarehouseEnv, team: bool, names: list[str]) -> Callable[[int, np.ndarray], np.ndarray]:
        first = env.reset(TUNING_SEED)

        def cost(sample: np.ndarray) -> np.ndarray:
            parameters = dict(zip(names, sample, strict=True))
            # A copy of the reset environment meets the same episodes (common random numbers) without drawing them.
            figures = run_policy(copy.deepcopy(env), order_up_to(env, parameters), first)
            own = figures["cost"].mean(axis=0)  # (N,)
            return np.full(n, own.sum()) if team else own

        return lambda _, samples: np.stack([cost(sample) for sample in samples])

    level = newsvendor_levels(joint)
    spans = np.broadcast_to(np.asarray(joint.constants.lead_times), (n,)) + 1.0
    up_to, adaptive = {"level": level}, {"mean_factor": np.full(n, 0.5), "average_factor": 2.0 * spans}
    plans = {  # rule -> (environment, team cost?, start); every search starts with a spread of half its start
        "base_stock_alone": (alone, False, up_to),
        "base_stock_joint": (joint, True, up_to),
        "s_S_joint": (joint, True, {"level": level, "gap": 0.2 * level}),
        "adaptive_alone": (alone, False, adaptive),
        "adaptive_joint": (joint, True, adaptive),
    }
    found: dict[str, dict[str, np.ndarray]] = {"newsvendor": up_to}
    for key, (env, team, start) in plans.items():
        names, mean = list(start), np.stack(list(start.values()))  # (K, N)
        costs, rng = judge(env, team, names), np.random.default_rng(seed)
        size = {"generations": iterations, "candidates": population, "kept": max(4, population // 6)}
        best = cross_entropy(costs, mean, 0.5 * mean, **size, rng=rng, lowest=0.0, fading=0.02)
        found[key] = dict(zip(names, best, strict=True))
        report(f"{difficulty}: {RULES[key]}: {judge(joint, True, names)(0, best[None])[0, 0]:.2f} on the tuning seeds")
    return {
        key: {name: [round(float(v), 4) for v in values] for name, values in parameters.items()}
        for key, parameters in found.items()
    }


# ------------------------------------------------------------------------------------------------------ the command


def evaluation_rows(difficulty: str, episodes: int, bound_episodes: int = 0) -> list[dict[str, Any]]:
    """One row a rule (and the bound): mean and 95 % half-width of cost and stockouts on the evaluation seeds.

    stockout_percent is unmet over demand of all episodes together; its interval is that of a ratio estimate.
    """
    env = MultiWarehouseEnv(difficulty, num_envs=episodes)
    rows = []
    for name, policy in baselines(env).items():
        figures = run_policy(env, policy, env.reset(EVALUATION_SEED))
        rows.append(_row(name, *(figures[k].sum(axis=-1) for k in ("cost", "unmet", "demand"))))
    if bound_episodes:
        env = MultiWarehouseEnv(difficulty, num_envs=bound_episodes)
        env.reset(EVALUATION_SEED)
        try:
            bounds = [clairvoyant_bound(env, e) for e in range(bound_episodes)]
        except ImportError as error:
            print(f"without the clairvoyant bound: {error}, or give --bound-episodes 0", file=sys.stderr)
            return [{"difficulty": difficulty, **row} for row in rows]
        columns = (np.array([b[k] for b in bounds]) for k in ("total_cost", "unmet", "demand"))
        rows.append(_row("clairvoyant bound", *columns))
    return [{"difficulty": difficulty, **row} for row in rows]


def _row(name: str, cost: np.ndarray, unmet: np.ndarray, demand: np.ndarray) -> dict[str, Any]:
    n = len(cost)
    ratio, width = unmet.sum() / demand.sum(), student_t_quantile(n - 1) / np.sqrt(n) if n > 1 else np.nan
    return {
        "policy": name,
        "episodes": len(cost),
        "total_cost": cost.mean(),
        "total_cost_ci95": width * cost.std(ddof=1),
        "stockout_percent": 100 * ratio,
        "stockout_percent_ci95": 100 * width * (unmet - ratio * demand).std(ddof=1) / demand.mean(),
    }


FLAGS = {"episodes": "tuning-episodes", "population": "candidates", "iterations": "generations"}  # of `tune`


def _tune_and_store(difficulty: str, arguments: argparse.Namespace) -> None:
    stored = json.loads(TUNED_FILE.read_text(encoding="utf-8")) if TUNED_FILE.exists() else {}
    options = dict(
        episodes=arguments.tuning_episodes,
        population=arguments.candidates,
        iterations=arguments.generations,
        seed=arguments.seed,
    )
    report = {} if arguments.quiet else {"report": lambda line: print(line, flush=True)}
    parameters = tune(difficulty, **options, **report)
    flags = " ".join(f"--{FLAGS.get(name, name)} {value}" for name, value in options.items())
    stored[difficulty] = {
        "command": f"python retail/baselines.py --tune {shlex.quote(difficulty)} {flags}",
        "seeds": [TUNING_SEED, TUNING_SEED + options["episodes"] - 1],
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "parameters": parameters,
    }
    ordered = {name: stored[name] for name in DIFFICULTIES if name in stored}
    text = re.sub(r"\[[^]]*\]", lambda match: " ".join(match[0].split()), json.dumps(ordered, indent=1))
    temporary = TUNED_FILE.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(TUNED_FILE)  # all or nothing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    several = dict(nargs="*", choices=list(DIFFICULTIES), metavar="DIFFICULTY")
    parser.add_argument("--tune", **several, help="tune the rules and store them (no name: all difficulties)")
    parser.add_argument("--evaluate", **several, help="print the table (no name: all difficulties)")
    parser.add_argument("--episodes", type=int, default=2000, help="evaluation episodes a rule")
    parser.add_argument("--bound-episodes", type=int, default=500, help="episodes of the clairvoyant bound, 0 for none")
    parser.add_argument("--out", type=Path, help="write the table there as CSV too")
    parser.add_argument("--tuning-episodes", type=int, default=1000, help="episodes that every candidate plays")
    parser.add_argument("--candidates", type=int, default=48, help="of a generation of the tuning")
    parser.add_argument("--generations", type=int, default=40, help="of the tuning of a rule")
    parser.add_argument("--seed", type=int, default=0, help="of the cross-entropy method's samples")
    parser.add_argument("--quiet", action="store_true", help="say nothing while tuning")
    arguments = parser.parse_args(argv)
    if arguments.tune is None and arguments.evaluate is None:
        parser.error("give --tune or --evaluate")
    if min(arguments.episodes, arguments.tuning_episodes, arguments.candidates, arguments.generations) < 2:
        parser.error("--episodes, --tuning-episodes, --candidates and --generations must be at least 2")
    for difficulty in [] if arguments.tune is None else arguments.tune or DIFFICULTIES:
        _tune_and_store(difficulty, arguments)
    rows = []
    for difficulty in [] if arguments.evaluate is None else arguments.evaluate or DIFFICULTIES:
        rows += evaluation_rows(difficulty, arguments.episodes, arguments.bound_episodes)
    for row in rows:
        print(
            f"{row['difficulty']:7}{row['policy']:36}{row['total_cost']:7.1f} ± {row['total_cost_ci95']:.1f}"
            f"{row['stockout_percent']:8.2f} ± {row['stockout_percent_ci95']:.2f} %"
        )
    if arguments.out and rows:
        with open(arguments.out, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
