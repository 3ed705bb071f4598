"""What disturbs the warehouses in ``python -m core.experiment.what_if``, and which rules go through it with the team.

Nobody is trained or tuned anew for a scenario. Demand is drawn as ever, so an episode and the same episode disturbed
differ by the disturbance alone.
"""

from __future__ import annotations

import numpy as np

from core.experiment.what_if import Scenario
from retail.environment import MultiWarehouseEnv

RULES = ("base-stock, tuned jointly", "adaptive base-stock, tuned jointly")  # the best of the fixed, the one to beat
SHOWN = ("total_cost", "stockout_percent")  # metrics of the printed tables and the picture


def scenarios(env: MultiWarehouseEnv) -> dict[str, Scenario]:
    """The disturbances of an environment, from its own constants, by name."""
    c = env.constants
    first, last = c.horizon // 3, 2 * c.horizon // 3 - 1  # the middle third: before it to settle, after it to recover
    surge, cut = np.ones(c.horizon), np.ones(c.horizon)
    surge[first : last + 1], cut[first : last + 1] = 1.5, 0.5
    demand, supply = sum(c.mean_demand), c.supplier_capacity
    window, rule, largest = f"periods {first} to {last}", RULES[0], int(np.argmax(c.mean_demand))
    return {
        "demand surge": Scenario(
            f"demand x 1.5 in {window}: {1.5 * demand:.3g} units a period, the supplier ships {supply:.3g} at most",
            {"demand_multiplier": surge},
        ),
        "supplier cut": Scenario(
            f"the supplier ships half in {window}: {0.5 * supply:.3g} units a period at most, demand is {demand:.3g}",
            {"supplier_multiplier": cut},
        ),
        "longer lead times": Scenario(
            "every order takes one period more, the smallest step there is, in the whole episode; a warehouse knows it",
            {"lead_times": tuple(int(lead) + 1 for lead in np.broadcast_to(c.lead_times, env.num_agents))},
        ),
        "one by base-stock": Scenario(
            f"warehouse {largest + 1}, the one with the most demand, follows the rule '{rule}'",
            replaced=(largest, rule),
        ),
    }
