"""What an episode was like, unshaped: always reported beside the reward.

Shapes: T steps, E environments (copies), N routers, C channels.
"""

from __future__ import annotations

import numpy as np

from banking.constants import RoutingConstants


def episode_metrics(
    constants: RoutingConstants,
    latencies: np.ndarray,
    channels: np.ndarray,
    risks: np.ndarray,
    busy_ms: np.ndarray,
    possible_ms: np.ndarray,
    refusals: np.ndarray,
    leftovers: np.ndarray,
) -> dict[str, np.ndarray]:
    """Metrics by name, (E,) each. Means, percentiles and shares are over the episode's dispatched transactions.

    latencies (T, E, N) in ms, infinite where nothing was dispatched; channels (T, E, N), -1 where nothing was; risks
    (T, E); busy_ms and possible_ms (E, C), work done and work that could have been done; refusals and leftovers (E,).
    """
    k, (T, E, N) = constants, latencies.shape
    ordered = np.sort(latencies.transpose(1, 0, 2).reshape(E, T * N), axis=1)  # (E, T N), infinite at the end
    channels = np.ascontiguousarray(channels.transpose(1, 0, 2)).reshape(E, T * N)
    risks = np.ascontiguousarray(risks.T)  # (E, T)
    finite = np.isfinite(ordered)
    number = finite.sum(axis=1)
    each = np.maximum(number, 1)
    by_channel = np.stack([(channels == c).sum(axis=1) for c in range(k.num_channels)], axis=1)  # (E, C)
    under_target = (ordered < k.latency_target_ms).sum(axis=1)
    ordered = np.where(finite, ordered, 0.0)
    violated = risks > k.risk_limit
    metrics = {"latency_ms": ordered.sum(axis=1) / each}
    for percent in (50, 95, 99):
        metrics[f"latency_p{percent}_ms"] = sorted_percentile(ordered, number, percent)
    metrics["share_under_target"] = under_target / each
    metrics["risk_violation_percent"] = 100.0 * violated.mean(axis=1)
    metrics["risk_violated"] = violated.any(axis=1).astype(np.float64)
    metrics["mean_risk_percent"] = 100.0 * risks.mean(axis=1)
    metrics["cost_per_transaction"] = (by_channel * np.asarray(k.fees)).sum(axis=1) / each
    metrics |= {f"share_{name}": by_channel[:, c] / each for c, name in enumerate(k.channel_names)}
    utilisation = busy_ms / np.maximum(possible_ms, 1e-9)
    metrics |= {f"utilisation_{name}": utilisation[:, c] for c, name in enumerate(k.channel_names)}
    metrics["refusals"] = refusals.astype(np.float64)
    metrics["leftovers"] = leftovers.astype(np.float64)
    metrics["transactions"] = number.astype(np.float64)
    return metrics


def sorted_percentile(values: np.ndarray, number: np.ndarray, percent: float) -> np.ndarray:
    """Linear percentile of the first `number[e]` entries of each sorted row; 0 where there are none. -> (E,)"""
    rows = np.arange(len(values))
    position = np.maximum(number - 1, 0) * (percent / 100.0)
    low = position.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(number - 1, 0))
    return values[rows, low] + (position - low) * (values[rows, high] - values[rows, low])
