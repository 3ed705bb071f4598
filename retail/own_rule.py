"""A planner's own levels as a rule: the JSON file of `--rule`."""

from __future__ import annotations

from typing import Any

from core.experiment.runs.own_rule import per_agent
from retail.baselines import OrderUpTo, order_up_to
from retail.environment import MultiWarehouseEnv

LEVELS = ("level", "mean_factor", "average_factor")  # one of them, or a rule would silently never order


def from_levels(env: MultiWarehouseEnv, stated: dict[str, Any]) -> OrderUpTo:
    """Levels of the inventory position in units, each a number, a list of N, or an object by warehouse -> rule.

    {"min": 2, "max": 4} orders up to max whenever the position is at min or below; {"level": 4} every period; and what
    else `order_up_to` takes. Raises ValueError for levels that make no rule.
    """
    values = {name: per_agent(name, numbers, env.world()["agents"]) for name, numbers in stated.items()}
    if values.keys() & {"min", "max"}:
        if values.keys() != {"min", "max"}:
            raise ValueError(f"found {', '.join(values)}: give min and max together, and nothing else")
        if (values["min"] > values["max"]).any():
            raise ValueError(f"min {stated['min']} is above max {stated['max']}: orders go up to max; exchange them")
        values = {"level": values["max"], "gap": values["max"] - values["min"]}
    rule = order_up_to(env, values)
    if not values.keys() & set(LEVELS):
        raise ValueError(f"found {', '.join(values) or 'nothing'}: give min and max, or one of {', '.join(LEVELS)}")
    return rule
