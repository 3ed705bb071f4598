"""Classical rules for the banking problem: what a learner has to beat, tuned as hard as the learner.

Decentralized rules are functions of the local observation vector alone, so they deploy exactly like trained agents.
The two global references read the channels' true workloads through `begin_episode(env)` and show what local
information costs. Rules with parameters were tuned by the cross-entropy method (Rubinstein 1999) on their own seeds:

    python banking/baselines.py --tune                      # all difficulties; writes tuned_baselines.json
    python banking/baselines.py --evaluate hard

Observations are (N, O), or (E, N, O) when stacked; actions are channel numbers (N,) or (E, N).
A rule with parameters of shape (E, d) plays another candidate in each copy: that is how tuning runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from banking.constants import DIFFICULTIES, RoutingConstants, routing_constants
from banking.environment import TransactionRoutingEnv
from banking.observations import LATENCY_SCALE, PENDING_SCALE
from core.experiment.tuning import EVALUATION_SEED, TUNING_SEED, cross_entropy, half_width, rounded

TUNED_PATH = Path(__file__).with_name("tuned_baselines.json")
Policy = Callable[[np.ndarray], np.ndarray]


class LocalView:
    """The physical quantities that a router can read back from its own observation vector."""

    def __init__(self, constants: RoutingConstants, observations: np.ndarray):
        o, C = np.asarray(observations, dtype=np.float64), constants.num_channels
        self.has_head = o[..., 1] > 0.5  # (..., N)
        self.amount = constants.size_reference * 10.0 ** o[..., 2]  # dollars
        self.size = 2.0 * o[..., 3]
        self.urgent = o[..., 4] > 0.5
        self.in_flight = o[..., 6 : 6 + C] / PENDING_SCALE  # (..., N, C)
        self.wait_ms = o[..., 6 + C : 6 + 2 * C] * LATENCY_SCALE  # acknowledged latency minus base
        self.refused = o[..., 6 + 2 * C : 6 + 3 * C]
        self.weight = np.where(self.urgent, constants.urgent_weight, constants.standard_weight)


class Rule:
    """A policy: observations -> actions. `parameters`: (d,), or (E, d) with other values in each copy, or None."""

    needs_env = False  # True for centralized references
    meaning = ""  # of the parameters, in order

    def __init__(self, constants: RoutingConstants, parameters=None, seed: int = 0):
        self.constants, self.seed, self.env = constants, seed, None
        self.parameters = None if parameters is None else np.asarray(parameters, dtype=np.float64)
        self.rng = np.random.default_rng(seed)

    def begin_episode(self, env) -> None:
        """Called after every reset. Local rules only clear their memory; global references keep the environment."""
        self.env = env if self.needs_env else None

    def parameter(self, which: int | slice) -> np.ndarray:
        """Parameters with axes to broadcast against (..., N) or, for a slice, (..., N, size of the slice)."""
        values = self.parameters[..., which]
        if self.parameters.ndim == 1:
            return values
        return values[:, None] if isinstance(which, int) else values[:, None, :]  # (E, 1) or (E, 1, size)

    def smallest(self, prices: np.ndarray) -> np.ndarray:
        """Channel of the smallest price, ties broken at random: prices (..., N, C) -> (..., N)."""
        return np.argmin(prices + 1e-7 * self.rng.random(prices.shape), axis=-1)


class UniformRandom(Rule):
    def __call__(self, observations):
        return self.rng.integers(0, self.constants.num_channels, observations.shape[:-1])


class RoundRobin(Rule):
    """Each router sends its transactions to the channels in turn, starting with a different one."""

    def begin_episode(self, env):
        self.turn = None

    def __call__(self, observations):
        if getattr(self, "turn", None) is None or self.turn.shape != observations.shape[:-1]:
            self.turn = np.broadcast_to(np.arange(observations.shape[-2]), observations.shape[:-1]).copy()
        actions = self.turn % self.constants.num_channels
        self.turn += observations[..., 1] > 0.5
        return actions


@dataclass
class Always:
    """Every transaction to one channel."""

    channel: int

    def __call__(self, observations):
        return np.full(observations.shape[:-1], self.channel)


class GreedyCheapest(Rule):
    """The cheapest channel that has not refused this router lately (flag below 0.5: the last six steps)."""

    def __call__(self, observations):
        view = LocalView(self.constants, observations)
        return np.argmin(self.constants.fees + 1e6 * (view.refused >= 0.5), axis=-1)


class ShortestExpectedDelay(Rule):
    """The channel with the smallest average latency among the router's own acknowledgements. It reacts a latency late,
    so all routers flood the channel that was good a second ago: worse than chance."""

    def __call__(self, observations):
        view = LocalView(self.constants, observations)
        return self.smallest(view.wait_ms + self.constants.base_latency_ms)


class OwnJoinShortestQueue(Rule):
    """The channel with the fewest own transactions in flight."""

    def __call__(self, observations):
        return self.smallest(LocalView(self.constants, observations).in_flight)


class GlobalJoinShortestQueue(Rule):
    """The channel with the least work waiting (centralized reference)."""

    needs_env = True

    def __call__(self, observations):
        workload = self.env.workload_ms[..., None, :]  # (..., 1, C)
        return self.smallest(np.broadcast_to(workload, (*observations.shape[:-1], workload.shape[-1])))


class StaticSplit(Rule):
    """Channels drawn with fixed shares. Parameters: for each router C - 1 logits relative to channel 0."""

    meaning = "for each router: logits of channels 1, 2, ... relative to channel 0"

    @staticmethod
    def prior(k: RoutingConstants):
        size = k.num_routers * (k.num_channels - 1)
        return np.zeros(size), np.full(size, 1.0)

    def __call__(self, observations):
        free = self.parameters.reshape(*self.parameters.shape[:-1], self.constants.num_routers, -1)  # (..., N, C - 1)
        logits = np.concatenate([np.zeros((*free.shape[:-1], 1)), free], axis=-1)  # (..., N, C)
        # The Gumbel-max trick: the largest of logit + Gumbel noise is a draw from the softmax.
        noise = -np.log(self.rng.exponential(size=(*observations.shape[:-1], self.constants.num_channels)))
        return np.argmax(logits + noise, axis=-1)

    def levels(self, names: list[str]) -> dict:
        """The numbers of the rule by name (see MEANING)."""
        k = self.constants
        logits = np.concatenate([np.zeros((k.num_routers, 1)), self.parameters.reshape(k.num_routers, -1)], axis=1)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)  # (N, C)
        return {"shares": {n: rounded(row, k.channel_names) for n, row in zip(names, shares, strict=True)}}


class SizeThreshold(Rule):
    """Small amounts to the channel with the highest risk rate, large ones to the safest. Parameters: for each router
    the logarithms (base 10, of dollars) of C - 1 thresholds."""

    meaning = "for each router: log10 of the thresholds in dollars"

    @staticmethod
    def prior(k: RoutingConstants):
        steps = np.linspace(-0.2, 0.4, k.num_channels - 1)
        mean = np.log10(k.amount_medians)[:, None] + steps  # (N, C - 1)
        return mean.ravel(), np.full(mean.size, 0.3)

    def __call__(self, observations):
        k = self.constants
        view = LocalView(k, observations)
        thresholds = self.parameters.reshape(*self.parameters.shape[:-1], k.num_routers, k.num_channels - 1)
        rank = (np.log10(view.amount)[..., None] > thresholds).sum(axis=-1)  # (..., N)
        return np.argsort([-rho for rho in k.risk_rates], kind="stable")[rank]

    def levels(self, names: list[str]) -> dict:
        """The numbers of the rule by router, as `--rule` takes them (see MEANING)."""
        k = self.constants
        dollars = np.sort(10.0 ** self.parameters.reshape(k.num_routers, -1), axis=1)  # (N, C - 1)
        channels = [k.channel_names[c] for c in np.argsort([-rho for rho in k.risk_rates], kind="stable")]
        return {"thresholds": [rounded(column, names) for column in dollars.T], "channels": channels}


class IndexRule(Rule):
    """The channel with the smallest price, where W is the work waiting there in ms:

    price_c = u (base_c + W_c) / 100 + g_c W_c + 0.3 fee_c + constant_c + p rho_c amount m

    u is the latency weight and m the size factor of the transaction at the head. g_c prices the delay it causes to
    those who come later, constant_c corrects the channel as a whole (channel 0: zero), and p is the price of risk.
    Parameters: C of log g, C - 1 constants, log p; subclasses add what they need to estimate W.
    """

    meaning = "log g of each channel (1/ms); constants of channels 1, 2, ...; log of the price of risk"

    @staticmethod
    def prior(k: RoutingConstants):
        C = k.num_channels
        mean = np.concatenate([np.full(C, -6.0), np.zeros(C - 1), [-2.5]])
        return mean, np.concatenate([np.full(C, 1.0), np.full(C - 1, 1.0), [1.0]])

    def levels(self, names: list[str]) -> dict:
        """The numbers of the rule by channel (see MEANING)."""
        k, C = self.constants, self.constants.num_channels
        found = {"delay_price": rounded(np.exp(self.parameters[:C]), k.channel_names)}
        constant = [0.0, *self.parameters[C : 2 * C - 1]]
        price = float(f"{np.exp(self.parameters[2 * C - 1]):.4g}")
        return found | {"constant": rounded(constant, k.channel_names), "risk_price": price}

    def prices(self, view: LocalView, workload: np.ndarray) -> np.ndarray:
        k = self.constants
        C = k.num_channels
        rate = np.exp(self.parameter(slice(0, C)))  # 1 / ms
        constant = self.parameter(slice(C, 2 * C - 1))
        constant = np.concatenate([np.zeros((*constant.shape[:-1], 1)), constant], axis=-1)
        risk_price = np.exp(self.parameter(2 * C - 1))
        exposure = (risk_price * view.amount * view.size)[..., None] * k.risk_rates  # (..., N, C)
        latency = view.weight[..., None] * (np.asarray(k.base_latency_ms) + workload) / k.latency_target_ms
        return latency + rate * workload + k.fee_weight * np.asarray(k.fees) + constant + exposure  # (BANKING-3)


class GlobalIndex(IndexRule):
    """The index rule on the true workloads (centralized reference)."""

    needs_env = True

    def __call__(self, observations):
        view = LocalView(self.constants, observations)
        return self.smallest(self.prices(view, self.env.workload_ms[..., None, :]))


class LocalIndex(IndexRule):
    """The index rule on an estimate of the workloads from the router's own experience,
    W_c = x_c * in-flight_c * work_c + y_c * (acknowledged latency_c - base_c). Parameters: also C log x and C log y."""

    meaning = "as the global index; then log x of each channel; log y of each channel"
    BY_CHANNEL = ("delay_price", "constant", "own_work", "own_wait")

    @staticmethod
    def prior(k: RoutingConstants):
        mean, sd = IndexRule.prior(k)
        C = k.num_channels
        return np.concatenate([mean, np.full(C, 0.0), np.full(C, -1.5)]), np.concatenate([sd, np.full(2 * C, 0.7)])

    def levels(self, names: list[str]) -> dict:
        k, C = self.constants, self.constants.num_channels
        own, wait = (rounded(np.exp(self.parameters[i * C : i * C + C]), k.channel_names) for i in (2, 3))
        return super().levels(names) | {"own_work": own, "own_wait": wait}

    @classmethod
    def from_levels(cls, k: RoutingConstants, stated: dict) -> LocalIndex:
        """The rule that `levels` described. Raises ValueError where a number is missing."""
        try:
            rows = [[stated[name][channel] for channel in k.channel_names] for name in cls.BY_CHANNEL]
            price, work, wait = (np.asarray(rows[i], dtype=float) for i in (0, 2, 3))
            with np.errstate(divide="ignore"):  # a price of 0 stays one
                logs = [np.log(price), np.log([float(stated["risk_price"])]), np.log(work), np.log(wait)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"a local index has {', '.join(cls.BY_CHANNEL)} and risk_price: {error}") from None
        return cls(k, np.concatenate([logs[0], rows[1][1:], *logs[1:]]))

    def __call__(self, observations):
        k = self.constants
        C = k.num_channels
        view = LocalView(k, observations)
        per_transaction = np.exp(self.parameter(slice(2 * C, 3 * C)))
        per_wait = np.exp(self.parameter(slice(3 * C, 4 * C)))
        return self.smallest(self.prices(view, per_transaction * view.in_flight * k.work_ms + per_wait * view.wait_ms))


class DiscountedUCB(Rule):
    """A bandit that forgets (Garivier and Moulines 2008, arXiv 0805.3415), as routers of payments in production are
    (Chaudhary et al. 2023, arXiv 2308.01028). It takes the channel whose latency is hopeful by own acknowledgements:

    price_c = u (base_c + D_c / n_c - width sqrt(log(1 + sum n) / n_c)) / 100 + 0.3 fee_c + constant_c + risk as above

    n_c counts the channel's acknowledgements and D_c adds their delays in ms; both forget with a time constant.
    Parameters: log of the time constant in steps, log width (ms), C - 1 constants, log p.
    """

    meaning = "log of the memory in steps; log of the width in ms; constants of channels 1, 2, ...; log price of risk"

    @staticmethod
    def prior(k: RoutingConstants):
        C = k.num_channels
        mean = np.concatenate([[5.0, 4.0], np.zeros(C - 1), [-2.5]])
        return mean, np.concatenate([[1.0, 1.0], np.full(C - 1, 1.0), [1.0]])

    def levels(self, names: list[str]) -> dict:
        """The numbers of the rule by channel (see MEANING)."""
        memory, width, *constants, price = self.parameters
        constant = rounded([0.0, *constants], self.constants.channel_names)
        memory, width, price = (float(f"{np.exp(value):.4g}") for value in (memory, width, price))
        return {"memory": memory, "width": width, "constant": constant, "risk_price": price}

    def begin_episode(self, env):
        self.before = None

    def __call__(self, observations):
        k = self.constants
        C = k.num_channels
        view = LocalView(k, observations)
        if getattr(self, "before", None) is None or self.before.wait_ms.shape != view.wait_ms.shape:
            self.counts, self.delays = np.zeros(view.wait_ms.shape), np.zeros(view.wait_ms.shape)  # (..., N, C)
        else:
            self._learn(view)
        trust = np.log1p(self.counts.sum(axis=-1, keepdims=True)) / np.maximum(self.counts, 0.01)
        hope = np.exp(self.parameter(1))[..., None] * np.sqrt(trust)
        latency = np.asarray(k.base_latency_ms) + self.delays / np.maximum(self.counts, 0.01) - hope
        constant = self.parameter(slice(2, C + 1))
        constant = np.concatenate([np.zeros((*constant.shape[:-1], 1)), constant], axis=-1)
        exposure = (np.exp(self.parameter(C + 1)) * view.amount * view.size)[..., None] * k.risk_rates
        price = view.weight[..., None] * latency / k.latency_target_ms + k.fee_weight * np.asarray(k.fees)
        self.before, self.chosen = view, self.smallest(price + constant + exposure)
        return self.chosen

    def _learn(self, view: LocalView) -> None:
        """Read from two observations in a row what was acknowledged between them, and with which delay."""
        k, before = self.constants, self.before
        sent = (np.arange(k.num_channels) == self.chosen[..., None]) & before.has_head[..., None]
        sent &= view.refused < 1.0  # the flag of a refusal is 1 at the next step alone
        arrived = np.maximum(np.rint(before.in_flight + sent - view.in_flight), 0.0)  # (..., N, C)
        kept = (1.0 - k.latency_memory) ** arrived  # of the average before; the newest acknowledgements have the rest
        delay = (view.wait_ms - kept * before.wait_ms) / np.maximum(1.0 - kept, k.latency_memory)
        memory = np.exp(-1.0 / np.exp(self.parameter(0)))[..., None]
        self.counts = memory * self.counts + arrived
        self.delays = memory * self.delays + arrived * np.maximum(delay, 0.0)


MEANING = {  # of a rule's numbers; times are simulated ones
    "shares": "of each router's transactions, drawn at random, by channel",
    "thresholds": "dollars; amounts up to the first go to the first of `channels`, up to the second to the next, ...",
    "channels": "in the order of the thresholds",
    "delay_price": "reward a ms of work that waits in the channel",
    "constant": "reward, of the channel as a whole",
    "risk_price": "reward a dollar times the channel's risk rate",
    "memory": "steps, until an acknowledgement counts for 1/e",
    "width": "ms that a channel's latency is taken to be lower for each unit of doubt",
    "own_work": "work that waits, for each own transaction on its way there, in mean transactions",
    "own_wait": "work that waits, for each ms that own transactions waited there lately",
}


TUNED: dict[str, type[Rule]] = {
    "static split": StaticSplit,
    "size threshold": SizeThreshold,
    "discounted UCB": DiscountedUCB,
    "local index": LocalIndex,
    "global index": GlobalIndex,
}


def baselines(env: TransactionRoutingEnv | str = "medium") -> dict[str, Policy]:
    """All rules for an environment (or a difficulty with the default constants), ordered from naive to centralized.

    The tuned ones take the parameters of `tuned_baselines.json` for that difficulty. ValueError if they are missing.
    """
    difficulty = env if isinstance(env, str) else env.difficulty
    constants = routing_constants(env, None, {}) if isinstance(env, str) else env.constants
    policies: dict[str, Policy] = {"uniform random": UniformRandom(constants), "round robin": RoundRobin(constants)}
    policies[f"always {constants.channel_names[0]}"] = Always(0)
    policies["greedy cheapest"] = GreedyCheapest(constants)
    policies["shortest expected delay"] = ShortestExpectedDelay(constants)
    for name in ("static split", "size threshold", "discounted UCB"):
        policies[name] = tuned_rule(name, difficulty, constants)
    policies["join shortest queue, own"] = OwnJoinShortestQueue(constants)
    policies["join shortest queue, global"] = GlobalJoinShortestQueue(constants)
    for name in ("local index", "global index"):
        policies[name] = tuned_rule(name, difficulty, constants)
    return policies


def tuned_rule(name: str, difficulty: str, constants: RoutingConstants | None = None) -> Rule:
    """A rule with its tuned parameters."""
    stored = json.loads(TUNED_PATH.read_text(encoding="utf-8")) if TUNED_PATH.exists() else {}
    if name not in stored.get(difficulty, {}).get("rules", {}):
        raise ValueError(
            f"{TUNED_PATH.name} has no parameters of {name!r} for {difficulty!r}; "
            f"run: python banking/baselines.py --tune {difficulty}"
        )
    constants = constants or routing_constants(difficulty, None, {})
    parameters = stored[difficulty]["rules"][name]["parameters"]
    if len(parameters) != TUNED[name].prior(constants)[0].size:
        raise ValueError(
            f"the parameters of {name!r} are for {RoutingConstants().num_routers} routers and "
            f"{RoutingConstants().num_channels} channels, found {constants.num_routers} and "
            f"{constants.num_channels}; tune it for them with cross_entropy"
        )
    return TUNED[name](constants, parameters)


# ---------------------------------------------------------------------- running


def play(env: TransactionRoutingEnv, policy: Policy, seeds) -> dict[str, np.ndarray]:
    """One episode a copy of a stacked environment; metrics and team_return (summed over agents and time), (E,) each."""
    observations = env.reset(seed=seeds)
    if hasattr(policy, "begin_episode"):
        policy.begin_episode(env)
    team_return, over = 0.0, False
    while not over:
        observations, rewards, dones, info = env.step(policy(observations))
        team_return = team_return + rewards.sum(axis=-1, dtype=np.float64)
        over = bool(dones.all())
    return {"team_return": team_return, **info["episode_metrics"]}


def evaluate_rule(policy: Policy, difficulty: str, episodes: int, seed: int = EVALUATION_SEED, **options) -> dict:
    """Metrics of episodes with seeds seed, seed + 1, ...: dict name -> (episodes,). options: of the environment."""
    copies = 256
    tables = []
    for start in range(0, episodes, copies):
        env = TransactionRoutingEnv(min(copies, episodes - start), difficulty, **options)
        tables.append(play(env, policy, seed + start))
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


# ----------------------------------------------------------------------- tuning


@dataclass(frozen=True)
class TuningPlan:
    """Cross-entropy method."""

    generations: int = 30
    candidates: int = 48  # a generation
    episodes: int = 16  # a candidate
    elite_share: float = 0.15  # of the candidates, kept
    averaged: int = 10  # last generations whose means are averaged
    seed: int = 0


def tune_rule(rule: type[Rule], env: TransactionRoutingEnv, plan: TuningPlan, quiet: bool = True) -> list[float]:
    """Parameters that maximise the mean team return. All candidates of a generation meet the same episodes (common
    random numbers), and every generation meets new ones, so that luck is not learnt.

    env: of candidates x episodes copies.
    """
    k = env.constants
    mean, sd = (np.array(values) for values in rule.prior(k))

    def costs(generation: int, points: np.ndarray) -> np.ndarray:
        seeds = TUNING_SEED + generation * plan.episodes + np.arange(plan.episodes)
        policy = rule(k, np.repeat(points, plan.episodes, axis=0), seed=plan.seed + generation)
        returns = play(env, policy, np.tile(seeds, plan.candidates).tolist())["team_return"]
        score = returns.reshape(plan.candidates, plan.episodes).mean(axis=1)  # (P,)
        if not quiet:
            print(f"  {rule.__name__:14s} generation {generation + 1:3d} of {plan.generations}: {score.max():9.1f}")
        return -score

    return cross_entropy(
        costs,
        mean,
        sd,
        generations=plan.generations,
        candidates=plan.candidates,
        kept=max(2, round(plan.elite_share * plan.candidates)),
        rng=np.random.default_rng(plan.seed),
        floor=0.05,
        averaged=plan.averaged,
    ).tolist()


def tune(difficulties: list[str], plan: TuningPlan, path: Path = TUNED_PATH, quiet: bool = False) -> dict:
    """Tune every rule with parameters and write them to `path`; other difficulties in the file stay."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for difficulty in difficulties:
        started = time.perf_counter()
        env = TransactionRoutingEnv(plan.candidates * plan.episodes, difficulty)
        rules = {
            name: {"meaning": rule.meaning, "parameters": np.round(tune_rule(rule, env, plan, quiet), 6).tolist()}
            for name, rule in TUNED.items()
        }
        print(f"{difficulty}: tuned {len(TUNED)} rules in {time.perf_counter() - started:.0f} s", flush=True)
        stored[difficulty] = {
            "command": f"python banking/baselines.py --tune {difficulty} --generations {plan.generations}",
            "method": {"name": "cross-entropy method on the mean team return", **asdict(plan)},
            "seeds": {"first": TUNING_SEED, "last": TUNING_SEED + plan.generations * plan.episodes - 1},
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "rules": rules,
        }
        ordered = {name: stored[name] for name in DIFFICULTIES if name in stored}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)  # all or nothing
    return stored


# ------------------------------------------------------------------ command line

COLUMNS = {
    "latency_ms": ("latency ms", 1),
    "latency_p95_ms": ("p95 ms", 0),
    "share_under_target": ("< 100 ms", 3),
    "risk_violation_percent": ("R > 5 %", 2),
    "risk_violated": ("episodes", 3),
    "cost_per_transaction": ("$/trans.", 3),
    "leftovers": ("left", 1),
    "refusals": ("refused", 1),
    "team_return": ("team reward", 0),
}


def evaluation_rows(difficulty: str, scenario: str | None, episodes: int) -> list[dict]:
    """A row a rule: mean and 95 % half-width of every metric of COLUMNS on the evaluation seeds."""
    rows = []
    for name, policy in baselines(difficulty).items():
        metrics = evaluate_rule(policy, difficulty, episodes, scenario=scenario)
        row = {"difficulty": difficulty, "scenario": scenario or "", "policy": name, "episodes": episodes}
        for metric in COLUMNS:
            row |= {metric: metrics[metric].mean(), f"{metric}_ci95": half_width(metrics[metric])}
        rows.append(row)
    return rows


def print_table(rows: list[dict]) -> None:
    first, episodes = rows[0], rows[0]["episodes"]
    where = f"{first['difficulty']}, {first['scenario']}" if first["scenario"] else first["difficulty"]
    print(
        f"{where}: {episodes} episodes, seeds {EVALUATION_SEED}..{EVALUATION_SEED + episodes - 1}; "
        "mean ± 95 % half-width; team reward = sum over agents and time"
    )
    print(f"{'policy':28s}" + "".join(f"{title:>18s}" for title, _ in COLUMNS.values()))
    for row in rows:
        cells = (f"{row[m]:.{d}f} ± {row[f'{m}_ci95']:.{d}f}" for m, (_, d) in COLUMNS.items())
        print(f"{row['policy']:28s}" + "".join(f"{cell:>18s}" for cell in cells), flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    several, plan = dict(nargs="*", choices=list(DIFFICULTIES), metavar="DIFFICULTY"), TuningPlan()
    parser.add_argument("--tune", **several, help="tune the rules and store them (no name: all difficulties)")
    parser.add_argument("--evaluate", **several, help="print the table (no name: all difficulties)")
    parser.add_argument("--scenario", choices=["outage"], help="evaluate under a scenario")
    parser.add_argument("--episodes", type=int, default=2000, help="evaluation episodes a rule")
    parser.add_argument("--out", type=Path, help="write the table there as CSV too")
    parser.add_argument(
        "--tuning-episodes", type=int, default=plan.episodes, help="episodes that every candidate plays"
    )
    parser.add_argument("--candidates", type=int, default=plan.candidates, help="of a generation of the tuning")
    parser.add_argument("--generations", type=int, default=plan.generations, help="of the tuning of a rule")
    parser.add_argument("--seed", type=int, default=plan.seed, help="of the cross-entropy method's samples")
    parser.add_argument("--quiet", action="store_true", help="say little while tuning: a line a difficulty")
    given = parser.parse_args(arguments)
    if given.tune is None and given.evaluate is None:
        parser.error("give --tune or --evaluate")
    if min(given.episodes, given.tuning_episodes, given.candidates, given.generations) < 2 or given.seed < 0:
        parser.error("--episodes, --tuning-episodes, --candidates and --generations must be at least 2, --seed 0")
    plan = TuningPlan(given.generations, given.candidates, given.tuning_episodes, seed=given.seed)
    try:
        if given.tune is not None:
            tune(given.tune or list(DIFFICULTIES), plan, quiet=given.quiet)
        table = []
        for difficulty in [] if given.evaluate is None else given.evaluate or DIFFICULTIES:
            rows = evaluation_rows(difficulty, given.scenario, given.episodes)
            print_table(rows)
            table += rows
        if given.out and table:
            with open(given.out, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(table[0]))
                writer.writeheader()
                writer.writerows(table)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
