"""What disturbs the routers in the what-if tables, and which rules go through it with the team.

Nobody is trained or tuned anew for a scenario. A surge draws other transactions (there are more of them) at the same
hours, bursts and capacities; in the other scenarios the transactions are those of the undisturbed episode.
"""

from __future__ import annotations

import numpy as np

from banking.environment import TransactionRoutingEnv
from core.experiment.deployment.what_if import Scenario

RULES = ("join shortest queue, own", "size threshold", "local index", "global index")  # the last one is centralized
SHOWN = ("latency_ms", "risk_violation_percent", "team_return")  # metrics of the printed tables and the picture


def scenarios(env: TransactionRoutingEnv) -> dict[str, Scenario]:
    """The disturbances of an environment, from its own constants, by name."""
    k = env.constants
    steps, second = int(k.episode_steps), round(1000 / k.step_ms)
    first = steps // 3  # the last two thirds are there to recover
    surge = np.ones(steps)
    surge[first : first + second] = 1.5
    offered, served = k.load * sum(k.arrival_rates) * second, sum(k.channel_rates)
    start, channel, rule = f"from {first * k.step_ms / 1000:g} s on", k.channel_names[0], RULES[0]
    busiest = int(np.argmax(k.arrival_rates))
    return {
        "arrival surge": Scenario(
            f"arrivals x 1.5 for 1 s {start}: {1.5 * offered:.0f} a second, all channels together serve {served:g}",
            {"arrival_multiplier": surge},
        ),
        "channel outage": Scenario(
            f"{channel}, the fastest channel, does no work for 1 s {start}, instead of random outages; nobody is told",
            {"outage": (channel, first, second)},
        ),
        "stale acknowledgements": Scenario(
            "acknowledgements come 0.5 s late, in the whole episode: several times what a transaction takes",
            {"ack_delay_steps": second // 2},
        ),
        "one by shortest queue": Scenario(
            f"router {busiest}, the one with the most transactions, follows the rule '{rule}'", replaced=(busiest, rule)
        ),
    }
