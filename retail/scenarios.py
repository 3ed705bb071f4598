"""What disturbs the warehouses in the what-if tables, and which rules go through it with the team.

Nobody is trained or tuned anew for a scenario. Demand is drawn as ever, so an episode and the same episode disturbed
differ by the disturbance alone.
"""

from __future__ import annotations

import numpy as np

from core.experiment.deployment.what_if import Scenario
from retail.baselines import Policy, baselines, tuned_parameters
from retail.constants import RetailConstants
from retail.environment import MultiWarehouseEnv

ADAPTIVE = "adaptive base-stock, tuned jointly"
TOLD = "adaptive base-stock, told the lead times"
RULES = ("base-stock, tuned jointly", ADAPTIVE, TOLD)  # the best of the fixed, the one to beat, and that one informed
KEY = "adaptive_joint"  # of ADAPTIVE among the tuned parameters
SHOWN = ("total_cost", "stockout_percent")  # metrics of the printed tables and the picture


def more_rules(env: MultiWarehouseEnv) -> dict[str, Policy]:
    """The rule to beat, its levels in proportion to the periods that an order-up-to level covers, lead time + 1.

    A trained warehouse reads its lead time from the projected net stock that it observes. Tuned constants hide theirs,
    so beside a rule that is not told of a change stands one that is.
    """
    covered = np.broadcast_to(env.constants.lead_times, env.num_agents) + 1
    tuned_for = np.broadcast_to(RetailConstants().lead_times, env.num_agents) + 1
    parameters = {name: values * covered / tuned_for for name, values in tuned_parameters(env.difficulty)[KEY].items()}
    return {TOLD: baselines(env, parameters={KEY: parameters})[ADAPTIVE]}


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
            "every order takes one period more, the smallest step there is, in the whole episode; a warehouse is told",
            {"lead_times": tuple(int(lead) + 1 for lead in np.broadcast_to(c.lead_times, env.num_agents))},
        ),
        "one by base-stock": Scenario(
            f"warehouse {largest + 1}, the one with the most demand, follows the rule '{rule}'",
            replaced=(largest, rule),
        ),
    }
