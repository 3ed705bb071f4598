"""An operator's own table of amounts as a rule: the JSON file of `--rule`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from banking.baselines import LocalView
from banking.constants import RoutingConstants
from banking.environment import TransactionRoutingEnv
from core.experiment.runs.own_rule import per_agent

EXAMPLE = '{"thresholds": [100, 1000], "channels": ["internal", "external", "blockchain"]}'


@dataclass(frozen=True)
class Thresholds:
    """Amounts up to the first threshold go to the first channel, up to the second to the next, and so on."""

    constants: RoutingConstants
    dollars: np.ndarray  # (N, K - 1), rising
    channels: np.ndarray  # (K,) numbers

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """(..., N, O) -> channel numbers (..., N)."""
        amounts = LocalView(self.constants, observations).amount[..., None]
        return self.channels[(amounts > self.dollars).sum(axis=-1)]


def from_thresholds(env: TransactionRoutingEnv, stated: dict[str, Any]) -> Thresholds:
    """{"thresholds": dollars, "channels": names} -> rule. K - 1 thresholds, each a number, a list of N, or an object by
    router; channels from small amounts to large, by default from the riskiest to the safest.

    Raises ValueError for a table that makes no rule.
    """
    k, names = env.constants, env.world()["agents"]
    unknown = sorted(stated.keys() - {"thresholds", "channels"})
    if unknown or not isinstance(stated.get("thresholds"), list):
        raise ValueError(f"found {', '.join(unknown) or 'no list of thresholds'}: write for instance {EXAMPLE}")
    riskiest = np.argsort([-rho for rho in k.risk_rates], kind="stable")
    chosen = stated.get("channels", [k.channel_names[c] for c in riskiest])
    known = list(k.channel_names)
    if not isinstance(chosen, list) or not chosen or any(name not in known for name in chosen):
        raise ValueError(f"channels is {chosen!r}: give a list of {', '.join(known)}")
    if len(stated["thresholds"]) != len(chosen) - 1:
        raise ValueError(
            f"{len(stated['thresholds'])} thresholds for {len(chosen)} channels: give one less than channels"
        )
    rows = [per_agent(f"thresholds[{i}]", row, names) for i, row in enumerate(stated["thresholds"])]
    dollars = np.stack(rows, axis=1) if rows else np.zeros((len(names), 0))
    if (np.diff(dollars, axis=1) < 0).any():
        raise ValueError(f"thresholds {stated['thresholds']} fall: write them from small to large")
    return Thresholds(k, dollars, np.array([known.index(name) for name in chosen]))
