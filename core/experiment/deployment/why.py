"""Why this decision? The exact Shapley value of every input: what it adds to the decision, in units.

Between a baseline (what the training saw on average, unless another is given) and what is known now lie 2^G mixtures,
in each of which some inputs are as now and the others as in the baseline. The value of an input is what its change
adds, averaged over all orders in which the inputs can change one after the other (Shapley 1953). The values add up to
the decision less the baseline's. All mixtures go through the network in one batch, so nothing is sampled.

Shapes: G inputs (or groups of them that belong together), M mixtures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.experiment.deployment.export import policy_of
from core.experiment.deployment.saved_teams import TrainedRun
from core.experiment.reporting.plotting import explanation

GRID = 121  # points of the curve


def shapley(value: Callable[[np.ndarray], np.ndarray], groups: int) -> np.ndarray:
    """Exact Shapley values (G,) of a game. value: (M, G) bool, who takes part -> (M,) what they reach together."""
    codes = np.arange(2**groups)
    worth = value((codes[:, None] >> np.arange(groups)) & 1 == 1)  # (2^G,)
    size = np.array([code.bit_count() for code in codes.tolist()])
    weights = np.array([1.0 / (groups * math.comb(groups - 1, k)) for k in range(groups)])
    shares = np.empty(groups)
    for g in range(groups):
        without = codes[codes >> g & 1 == 0]
        shares[g] = (weights[size[without]] * (worth[without | 1 << g] - worth[without])).sum()
    return shares


@dataclass(frozen=True)
class Why:
    """One explained decision.

    Attributes:
        agent: its name. decision: in units. base: in units, of the baseline.
        value, base_value: what the shares add up to the difference of: the order, or the lead of the chosen channel,
            its score less the best other's.
        shares: input (or group of inputs) -> Shapley value.
    """

    agent: str
    decision: Any
    base: Any
    value: float
    base_value: float
    shares: dict[str, float]
    inputs: dict[str, float]
    baseline: dict[str, float]

    def changed(self, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """The shares of those inputs that are not, for a reader, as in the baseline."""
        near = {name for name, value in self.inputs.items() if math.isclose(value, self.baseline[name], rel_tol=1e-3)}
        same = {name for name, own in groups.items() if near.issuperset(own)}
        return {name: share for name, share in self.shares.items() if name not in same}


def explain(run: TrainedRun, inputs: Mapping[str, Any], agent: int, baseline: Mapping[str, float] | None = None) -> Why:
    """Explain one agent's decision.

    Raises:
        ValueError: inputs that cannot be used, a recurrent team, or no baseline where the run does not tell one.
    """
    now = run.checked_inputs(inputs)
    base = run.typical_inputs(agent) if baseline is None else run.checked_inputs(baseline)
    worth, groups = _worth(run, agent, now), run.units.groups

    def value(present: np.ndarray) -> np.ndarray:
        mixed = {}
        for column, names in enumerate(groups.values()):
            mixed |= {name: np.where(present[:, column], now[name], base[name]) for name in names}
        return worth(mixed)

    ends = np.array([[False] * len(groups), [True] * len(groups)])
    base_value, full = value(ends).tolist()
    shares = dict(zip(groups, shapley(value, len(groups)).tolist(), strict=True))
    decided = (
        run.units.decision(policy_of(run.agents, agent).act(run.units.encode(x, agent)), agent) for x in (now, base)
    )
    return Why(run.names[agent], *decided, full, base_value, shares, now, base)


def _worth(run: TrainedRun, agent: int, now: Mapping[str, float]) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """What is explained: named inputs (M,) -> (M,), the order in units, or the lead of the channel chosen now."""
    policy = policy_of(run.agents, agent)
    if policy.rule != "argmax":
        return lambda inputs: run.units.decision(policy.act(run.units.encode(inputs, agent)), agent)
    chosen = int(policy.act(run.units.encode(now, agent)))

    def lead(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        scores = policy.outputs(run.units.encode(inputs, agent)).astype(float)
        return scores[..., chosen] - np.delete(scores, chosen, axis=-1).max(axis=-1)

    return lead


def sentences(run: TrainedRun, why: Why) -> str:
    """An explained decision for people; inputs that are as in the baseline add nothing, and are left out."""
    what, unit = run.words.DECISION, run.words.DECISION_UNIT
    if unit:
        lines = [f"{why.agent}: {what} {why.decision:.3g} {unit}, at the baseline {why.base:.3g}"]
    else:
        lines = [f"{why.agent}: {what} {why.decision}, at the baseline {why.base}"]
        lead = f"its lead over the best other is {why.value:+.3g} points of the network's score"
        lines.append(f"  {lead}, at the baseline {why.base_value:+.3g}")
    for name, share in sorted(why.changed(run.units.groups).items(), key=lambda item: -abs(item[1])):
        own = run.units.groups[name]
        changes = [f"{n if len(own) > 1 else ''} {why.inputs[n]:.3g} for {why.baseline[n]:.3g}".strip() for n in own]
        lines.append(f"  {share:+8.3f}  {name}: {', '.join(changes)}")
    return "\n".join([*lines, f"  {sum(why.shares.values()):+8.3f}  all together"])


def draw(run: TrainedRun, why: Why, folder: Path) -> Path:
    """The shares as bars, and the decision as a curve over one input, all others as they are now -> why_<agent>.png."""
    agent, words = run.number_of(why.agent), run.words
    at = why.inputs[words.CURVE]
    low, high = (float(run.units.decode(x[agent])[words.CURVE]) for x in (run.low, run.high))
    low, high = (min(low, at), max(high, at)) if np.isfinite(low) else (0.5 * at, 2.0 * at + 1.0)
    grid = np.linspace(low, high, GRID)
    inputs = {name: np.full(GRID, value) for name, value in why.inputs.items()} | {words.CURVE: grid}
    seen, (name, rule) = run.units.encode(inputs, agent), run.rule
    policy = policy_of(run.agents, agent)
    if policy.rule == "argmax":
        scores = policy.outputs(seen)
        lines = {channel: scores[:, c] - scores.mean(axis=1) for c, channel in enumerate(run.units.channels)}
        unit, added = "score, above the mean of all", "points of the lead over the best other"
        title = f"{why.agent}: {words.DECISION} {why.decision}, {why.base} at the baseline"
    else:
        by_rule = np.array([run.units.decision(rule(x, agent), agent) for x in seen])
        lines = {"the team's": run.units.decision(policy.act(seen), agent), name: by_rule}
        unit, added = f"{words.DECISION}, {words.DECISION_UNIT}", words.DECISION_UNIT
        title = (
            f"{why.agent}: {words.DECISION} {why.decision:.2f} {words.DECISION_UNIT}, {why.base:.2f} at the baseline"
        )
    path = folder / f"why_{re.sub(r'[^0-9A-Za-z-]+', '_', why.agent)}.png"
    curve_unit = run.observations[words.CURVE][0]
    shares, xlabel = why.changed(run.units.groups), f"{words.CURVE}, {curve_unit}"
    explanation(path, shares, grid, lines, at, title=title, unit=unit, added=added, xlabel=xlabel)
    return path
