"""How cheap can warehouses become that see their own shelves alone? The retail simulator, differentiated exactly.

    python tests/benchmarks/attainable.py               # 15,000 and 150,000 training episodes; two minutes
    python tests/benchmarks/attainable.py --slopes RUN  # how right the critic of a MADDPG run is about the slopes

Everything that the environment does to an order is a sum, a product, a minimum or a maximum. So once demand is drawn,
the cost of an episode has a slope in every weight of the actor, and PyTorch follows it through all 30 periods: the
slope that MADDPG's critic has to estimate is computed here. The actor is MADDPG's (own observation and id, 64-64, one
for all warehouses, sigmoid); it is trained on fresh episodes by Adam, judged like everybody else, and the result is
what such an actor can reach with perfect slopes and far more data. It is no bound: another optimiser, a wider network
or a memory may find more. Writes docs/results/attainable.csv, a row a budget.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from core.experiment.evaluation import EVALUATION_SEED, half_width  # noqa: E402
from retail.baselines import baselines  # noqa: E402
from retail.environment import WEEK, MultiWarehouseEnv  # noqa: E402

PATH = ROOT / "docs" / "results" / "attainable.csv"
RULE = "adaptive base-stock, tuned jointly"
TRAINING_SEED = 1_000_000  # of the first training episode


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1500, help="of the actor (default: 1500)")
    parser.add_argument("--batches", type=int, nargs="+", default=[10, 100], help="episodes an update: 10 100")
    parser.add_argument("--episodes", type=int, default=2000, help="evaluation episodes (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the actor's weights (default: 0)")
    parser.add_argument("--out", type=Path, default=PATH, help="default: docs/results/attainable.csv")
    parser.add_argument("--slopes", type=Path, metavar="RUN", help="a MADDPG run folder, or retail/results/latest")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.slopes is not None:
        print(slope_report(*critic_slopes(options.slopes)))
        return
    judge = DifferentiableWarehouses(options.episodes)
    rule = baselines(judge.env)[RULE]
    by_rule = judge.total_cost(EVALUATION_SEED, lambda seen: torch.from_numpy(rule(seen.numpy())).float()[..., 0])
    rows = []
    for batch in options.batches:
        started = time.perf_counter()
        actor = trained(options.updates, batch, options.seed)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            cost = judge.total_cost(EVALUATION_SEED, actor)
        row = {"training_episodes": options.updates * batch, "seed": options.seed, "evaluated": options.episodes}
        for name, values in (("cost", cost), ("rule", by_rule), ("difference", cost - by_rule)):
            row |= {name: round(float(values.mean()), 3), f"{name}_ci95": round(half_width(values.numpy()), 3)}
        rows.append(row | {"seconds": round(seconds)})
        print(f"{options.updates * batch} episodes: {seconds:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(options.out, index=False, lineterminator="\n")
    print(markdown(table))


def markdown(table) -> str:
    """The table of docs/BENCHMARKS.md."""
    lines = ["| training episodes, exact slopes | cost, $ | minus the adaptive rule's, paired |", "|---|---|---|"]
    for _, row in table.iterrows():
        cost = f"{row['cost']:.1f} ± {row['cost_ci95']:.1f}"
        change = f"{row['difference']:+.1f} ± {row['difference_ci95']:.1f}"
        lines.append(f"| {row['training_episodes']:,.0f} | {cost} | {change} |")
    return "\n".join(lines) + "\n"


class Actor(nn.Module):
    """MADDPG's actor: observation and id -> share of the order limit. (E, N, O) -> (E, N)"""

    def __init__(self, observation_size: int, num_agents: int):
        super().__init__()
        self.ids = torch.eye(num_agents)
        sizes = (observation_size + num_agents, 64, 64)
        hidden = [layer for pair in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.network = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))

    def forward(self, observations: Tensor) -> Tensor:
        ids = self.ids.expand(len(observations), -1, -1)
        return torch.sigmoid(self.network(torch.cat([observations, ids], dim=-1)))[..., 0]


def trained(updates: int, batch: int, seed: int) -> Actor:
    """Descend the exact slope of the mean cost of `batch` fresh episodes, so many times; step size falling to 0."""
    torch.manual_seed(seed)
    warehouses = DifferentiableWarehouses(batch)
    actor = Actor(warehouses.env.observation_space_size, warehouses.env.num_agents)
    optimizer = torch.optim.Adam(actor.parameters(), 1e-3)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1.0 - update / updates)
        loss = warehouses.total_cost(TRAINING_SEED + update * batch, actor).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(actor.parameters(), 10.0)
        optimizer.step()
    return actor


MOMENTS = (2, 5, 8)  # periods in which slopes are compared; 20 more are played
AHEAD = 20


def critic_slopes(run: Path, episodes: int = 200) -> tuple[Tensor, Tensor]:
    """Of every order at some moments of greedy play: what a little more of it saves all warehouses together.

    The exact slope of the discounted cost to come, the team acting on as it does, and what the team's critics say.
    Both (moments * E, N), dollars for the whole order limit.
    """
    from core.experiment.deployment.saved_teams import load_team, trained

    path, config, settings = trained(run)[0]
    team = load_team(path, config, settings)
    env = settings.make_env(episodes, config["difficulty"], **config["env_options"])
    copy, exact, said = DifferentiableWarehouses(episodes, config["difficulty"]), [], []

    def act(observations: Tensor) -> Tensor:
        return team.act(observations, training=False, masks=None)[..., 0]  # (E, N)

    for moment in MOMENTS:
        with torch.no_grad():
            copy.total_cost(EVALUATION_SEED, act, periods=moment)
            env.reset(EVALUATION_SEED)
            for actions in copy.played:
                env.step(actions.numpy()[..., None].astype(float).clip(0.0, 1.0))
            states, seen = tensor(env.state()), copy.observations(moment)
        orders = act(seen).detach().requires_grad_()  # (E, N)
        cost = copy.step(moment, orders).sum()
        for k in range(1, AHEAD + 1):
            cost = cost + team.config.gamma**k * copy.step(moment + k, act(copy.observations(moment + k))).sum()
        exact.append(-torch.autograd.grad(cost, orders)[0])
        orders = orders.detach().requires_grad_()
        q = team.q_values("critic", seen, states, orders.T[None, ..., None], frozen=True)  # (N, E)
        said.append(torch.autograd.grad(q.sum(), orders)[0] / team.config.reward_scale)
    return torch.cat(exact).detach(), torch.cat(said).detach()


def slope_report(exact: Tensor, said: Tensor) -> str:
    """A line a warehouse."""
    lines = ["warehouse  correlation  mean exact  mean said"]
    for i, (a, b) in enumerate(zip(exact.T, said.T, strict=True)):
        correlation = np.corrcoef(a, b)[0, 1]
        lines.append(f"{i:9}  {correlation:11.2f}  {a.mean():10.2f}  {b.mean():9.2f}")
    whole = np.corrcoef(exact.flatten(), said.flatten())[0, 1]
    return "\n".join([*lines, f"{'all':>9}  {whole:11.2f}  {exact.mean():10.2f}  {said.mean():9.2f}"])


class DifferentiableWarehouses:
    """`MultiWarehouseEnv.step` and its observations again, in PyTorch, for E episodes that the environment draws."""

    def __init__(self, episodes: int, difficulty: str = "medium"):
        self.env = MultiWarehouseEnv(difficulty, num_envs=episodes)

    def total_cost(self, seed: int, policy, periods: int | None = None) -> Tensor:
        """Play the episodes `seed`, `seed` + 1, ... -> dollars (E,). Policy: (E, N, O) -> orders in [0, 1], (E, N)."""
        env, c = self.env, self.env.constants
        env.reset(seed)
        drawn = [env.episode(e) for e in range(env.num_envs)]
        self.demand = tensor(np.stack([episode.demand for episode in drawn], axis=1))  # (T, E, N)
        self.on_hand = tensor(np.stack([episode.on_hand for episode in drawn]))  # (E, N)
        self.pipeline = tensor(np.stack([episode.pipeline for episode in drawn], axis=1))  # (slots, E, N)
        self.average, zero = tensor(env._average), torch.zeros_like(self.on_hand)
        self.last = (self.average, zero, zero, zero, torch.ones(len(zero), 1))  # demand, unmet, received, sent, fill
        cost, self.played = 0.0, []  # orders so far, (E, N) each
        for period in range(c.horizon if periods is None else periods):
            self.played.append(policy(self.observations(period)))
            cost = cost + self.step(period, self.played[-1]).sum(dim=-1)
        return cost

    def step(self, period: int, actions: Tensor) -> Tensor:
        """One period -> (E, N) dollars. The numbers are those of the environment's own step."""
        env, c = self.env, self.env.constants
        orders = actions * tensor(env._order_limit)
        fill = (c.supplier_capacity / orders.sum(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)  # 1.
        arriving = self.pipeline[0]
        accepted = torch.minimum(arriving, (tensor(env._storage) - self.on_hand).clamp(min=0.0))  # 2.
        stock, demand = self.on_hand + accepted, self.demand[period]
        sold = torch.minimum(stock, demand)  # 3., 4.
        stock, unmet = stock - sold, demand - sold
        received = sent = torch.zeros_like(stock)
        for giver, receiver in ((env._next, env._previous), (env._previous, env._next)):  # 5.
            moved = torch.minimum(unmet, stock[:, giver]).clamp(max=c.lane_limit)
            given = moved[:, receiver]
            unmet, received, stock, sent = unmet - moved, received + moved, stock - given, sent + given
        cost = c.stockout_cost * unmet + c.holding_cost * stock  # 6.
        cost = cost + c.transfer_cost * received + c.return_cost * (arriving - accepted)
        entering = fill * orders * tensor(env._enters)  # (slots, E, N)  7.
        self.pipeline = torch.cat([entering[:-1] + self.pipeline[1:], entering[-1:]])
        self.on_hand, self.average = stock, self.average + c.average_weight * (demand - self.average)
        self.last = (demand, unmet, received, sent, fill)
        return cost

    def observations(self, period: int) -> Tensor:
        """(E, N, O): the columns of the environment's observations, in their order."""
        env, s = self.env, self.env._units.scale
        demand, unmet, received, sent, fill = self.last
        in_transit = self.pipeline.sum(dim=0)
        position = self.on_hand + in_transit
        day = torch.from_numpy((period + env._phase) % WEEK)[:, None].expand_as(position)
        lead = tensor(env._lead)
        columns = (
            self.on_hand / (4 * s),
            self.pipeline[0] / s,
            self.pipeline[1] / s,
            in_transit / (4 * s),
            demand / s,
            self.average / s,
            unmet / s,
            received / s,
            sent / s,
            tensor(env._units.week_sin)[day],
            tensor(env._units.week_cos)[day],
            fill.expand_as(position),
            (position - (lead + 1) * self.average) / (4 * s),
            (position / self.average.clamp(min=1e-9)).clamp(max=20.0) / 10.0,
        )
        return torch.stack(columns, dim=-1)


def tensor(values) -> Tensor:
    return torch.tensor(np.ascontiguousarray(values), dtype=torch.float32)


if __name__ == "__main__":
    main()
