"""The least an episode could have cost: a linear programme that knows all of its demand (scipy's HiGHS)."""

from __future__ import annotations

from typing import Any

import numpy as np

from retail.environment import MultiWarehouseEnv


def clairvoyant_bound(env: MultiWarehouseEnv, copy: int = 0) -> dict[str, float]:
    """Lower bound on what any policy pays for the current episode of one copy: total_cost, unmet, demand.

    A linear programme over the T periods with the environment's costs, capacity, lead times, storage, returns and
    lanes, knowing all demand. It may choose what the environment forces (to sell, to help a neighbour), so every
    policy's play is feasible for it. As in the environment, nothing after period T - 1 costs. Raises ImportError
    without scipy.
    """
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise ImportError("clairvoyant_bound needs scipy (HiGHS): pip install scipy") from error
    c, episode = env.constants, env.episode(copy)
    horizon, n = episode.demand.shape
    fixed = np.zeros((horizon, n))  # arrivals ordered before the episode
    fixed[: len(episode.pipeline)] = episode.pipeline[:horizon]
    matrices = _bound_matrices(horizon, n, tuple(np.broadcast_to(c.lead_times, n).astype(int)))
    storage = np.maximum(np.broadcast_to(np.asarray(c.storage, dtype=float), (n,)), episode.on_hand)
    start = np.zeros((horizon, n))
    start[0] = episode.on_hand

    each = np.ones((horizon, n))
    lane = c.lane_limit * each
    limits = dict(
        order=each * np.asarray(c.order_limit, dtype=float),
        returned=np.inf * each,
        sold=episode.demand,
        from_next=lane,
        from_previous=lane,
        left=np.inf * each,
    )
    served = c.transfer_cost - c.stockout_cost
    prices = dict(
        order=0.0,
        returned=c.return_cost,
        sold=-c.stockout_cost,
        from_next=served,
        from_previous=served,
        left=c.holding_cost,
    )
    upper = np.concatenate([limits[name].ravel() for name in _BLOCKS])
    result = linprog(
        np.repeat([prices[name] for name in _BLOCKS], horizon * n),
        A_eq=matrices["balance"],
        b_eq=(start + fixed).ravel(),
        A_ub=matrices["limits"],
        b_ub=np.concatenate([episode.demand.ravel(), fixed.ravel(), (storage - start - fixed).ravel(), episode.supply]),
        bounds=np.stack([np.zeros_like(upper), upper], axis=1),
        method="highs",
    )
    if result.status != 0:
        raise RuntimeError(f"the linear programme of the clairvoyant bound failed: {result.message}")
    values = dict(zip(_BLOCKS, result.x.reshape(len(_BLOCKS), -1), strict=True))
    total = float(episode.demand.sum())
    unmet = total - float(sum(values[name].sum() for name in ("sold", "from_next", "from_previous")))
    return {"total_cost": float(result.fun) + c.stockout_cost * total, "unmet": unmet, "demand": total}


_BLOCKS = ("order", "returned", "sold", "from_next", "from_previous", "left")  # the variables, (T, N) each


def _bound_matrices(horizon: int, n: int, lead_times: tuple[int, ...]) -> dict[str, Any]:
    """Coefficients of the linear programme, row (t, i) each; sources are the ring neighbours of the environment."""
    from scipy import sparse

    size = horizon * n
    one, none = sparse.identity(size, format="csr"), sparse.csr_matrix((size, size))
    index = np.arange(size).reshape(horizon, n)  # (T, N) -> row or column

    def pick(rows: np.ndarray, columns: np.ndarray) -> Any:
        return sparse.csr_matrix((np.ones(rows.size), (rows.ravel(), columns.ravel())), shape=(size, size))

    arrives = sum(pick(index[lead:, i], index[: max(horizon - lead, 0), i]) for i, lead in enumerate(lead_times))
    before = pick(index[1:], index[:-1])  # stock left by the period before
    gives_to_previous = pick(index, np.roll(index, 1, axis=1))  # i - 1 takes from its i + 1, which is i
    gives_to_next = pick(index, np.roll(index, -1, axis=1))
    supply = sparse.kron(sparse.identity(horizon), np.ones((1, n)))  # (T, T·N): orders of a period
    # left = left before + arrives - returned - sold - given away
    balance = sparse.hstack([-arrives, one, one, gives_to_previous, gives_to_next, one - before], format="csr")
    limits = sparse.bmat(
        [
            [none, none, one, one, one, none],  # served <= demand
            [-arrives, one, none, none, none, none],  # only what arrives can be sent back
            [arrives, -one, none, none, none, before],  # fits into the storage
            [supply, *[sparse.csr_matrix((horizon, size))] * 5],
        ],
        format="csr",
    )
    return {"balance": balance, "limits": limits}
