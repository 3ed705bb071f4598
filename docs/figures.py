"""The pictures of MARL_THEORY.md, each with the numbers behind it:

    python docs/figures.py                # about ten seconds -> docs/images/*.png and *.csv
    python docs/figures.py factorisation  # one of them: factorisation, clipping, exploration, queues, before_after

Only `queues` is random; it plays the banking environment on 256 episodes with the evaluation seeds 10000, 10001, ...
`before_after` is the picture of README.md; it is drawn from docs/results/comparison.csv, which
tests/benchmarks/comparison.py makes. scaling.png has a script of its own: tests/benchmarks/scaling.py.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#666666"  # Okabe and Ito 2008: safe for all eyes

CLIMBING = ((11, -30, 0), (-30, 7, 0), (0, 6, 5))
GAMES = {
    "climbing": CLIMBING,
    "penalty 0": ((0, 0, 10), (0, 2, 0), (10, 0, 0)),
    "penalty -25": ((-25, 0, 10), (0, 2, 0), (10, 0, -25)),
    "either": ((0, 1), (1, 1)),
    "two-step 2B": ((0, 1), (1, 8)),
}


def main(names: Sequence[str]) -> int:
    figures = {"factorisation": factorisation, "clipping": clipping, "exploration": exploration, "queues": queues}
    figures["before_after"] = before_after
    unknown = [name for name in names if name not in figures]
    if unknown:
        print(f"no figure is called {unknown[0]!r}; there are {', '.join(figures)}", file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    for name in names or figures:
        figures[name]()
        print(f"docs/images/{name}.png")
    return 0


# --- What a mixer can represent ---------------------------------------------------------------------------------------


def additive_fit(payoff: np.ndarray) -> np.ndarray:
    """Least-squares fit of VDN's class Q_1(a_1) + Q_2(a_2): row mean + column mean - mean. (A, A) -> (A, A)"""
    return payoff.mean(axis=1, keepdims=True) + payoff.mean(axis=0, keepdims=True) - payoff.mean()  # (GAME-1)


def monotone_fits(
    payoff: np.ndarray, increasing_differences: bool, weights: np.ndarray | None = None
) -> list[tuple[float, np.ndarray]]:
    """Squared error and fit, (A, A), for every order of the two agents' utilities; the smallest error is the best fit.

    Whatever the utilities are, they put each agent's actions in an order, and a monotone mixer makes the fitted table
    rise along both. QMIX's mixer also makes differences rise: raising both utilities gains at least what raising each
    gains. For a given order that is a small quadratic programme, solved for all orders at once by Hildreth's method
    (1957). `weights`, (A, A): how often each joint action is in the data; None: all alike.
    """
    n = len(payoff)
    orders = [(np.array(p), np.array(q)) for p in permutations(range(n)) for q in permutations(range(n))]
    weights = np.ones_like(payoff) if weights is None else weights
    sorted_tables, w = (np.stack([x[np.ix_(p, q)].ravel() for p, q in orders]) for x in (payoff, weights))
    rules = _rules(n, increasing_differences)  # (R, A * A), each row . table >= 0
    table, force = sorted_tables.copy(), np.zeros((len(orders), len(rules)))
    for _ in range(4000):
        for k, rule in enumerate(rules):
            change = np.maximum(-force[:, k], -(table @ rule) / (1 / w @ rule**2))  # (orders,)
            force[:, k] += change
            table += change[:, None] * rule / w
    fits = []
    for (p, q), row, target, weight in zip(orders, table, sorted_tables, w, strict=True):
        fit = np.empty_like(payoff)
        fit[np.ix_(p, q)] = row.reshape(n, n)
        fits.append((float((weight * (row - target) ** 2).sum()), fit))
    return fits


def _rules(n: int, increasing_differences: bool) -> np.ndarray:
    """Rows r with r . table >= 0 for tables that rise along both axes (and whose differences rise)."""
    rules = []

    def rule(plus: Iterable[tuple[int, int]], minus: Iterable[tuple[int, int]]) -> None:
        row = np.zeros((n, n))
        for cell in plus:
            row[cell] += 1
        for cell in minus:
            row[cell] -= 1
        rules.append(row.ravel())

    for i in range(n):
        for j in range(n):
            if i + 1 < n:
                rule([(i + 1, j)], [(i, j)])
            if j + 1 < n:
                rule([(i, j + 1)], [(i, j)])
            if increasing_differences and i + 1 < n and j + 1 < n:
                rule([(i + 1, j + 1), (i, j)], [(i + 1, j), (i, j + 1)])  # (GAME-2)
    return np.stack(rules)


def fits_of(payoff: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Class of mixers -> squared error and best fit."""
    additive = additive_fit(payoff)
    found = {"additive (VDN)": (float(((additive - payoff) ** 2).sum()), additive)}
    for name, rising in (("QMIX's mixer", True), ("any monotone mixer", False)):
        found[name] = min(monotone_fits(payoff, rising), key=lambda pair: round(pair[0], 3))
    return found


def factorisation() -> None:
    """Climbing game: the payoffs and their best fit in three classes of mixers."""
    rows = []
    for game, table in GAMES.items():
        payoff = np.array(table, dtype=float)
        for kind, (error, fit) in {"payoff": (0.0, payoff), **fits_of(payoff)}.items():
            rows += [(game, kind, round(error, 2), i, j, round(v, 3) + 0.0) for (i, j), v in np.ndenumerate(fit)]
    write("factorisation", ("game", "class", "squared_error", "action_1", "action_2", "value"), rows)

    payoff = np.array(CLIMBING, dtype=float)
    panels = {"payoff": (0.0, payoff), **fits_of(payoff)}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.7), layout="constrained")
    for axis, (name, (error, table)) in zip(axes, panels.items(), strict=True):
        axis.imshow(table, cmap="cividis", vmin=-30, vmax=11)
        best = np.unravel_index(table.argmax(), table.shape)
        for cell, value in np.ndenumerate(table):
            dark = value < -8
            axis.text(
                cell[1],
                cell[0],
                f"{value:.1f}",
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontweight="bold" if cell == best else "normal",
            )
        axis.add_patch(plt.Rectangle((best[1] - 0.47, best[0] - 0.47), 0.94, 0.94, fill=False, color="black", lw=2.5))
        title = f"{name}\nsquared error {error:.0f}, plays {payoff[best]:.0f}" if error else name
        axis.set_title(title, fontsize=10)
        axis.set(xticks=range(3), yticks=range(3), xlabel="action of agent 2")
    axes[0].set_ylabel("action of agent 1")
    save(figure, "factorisation")


# --- PPO's clip and where the noise enters ----------------------------------------------------------------------------


def clipping(clip_range: float = 0.2) -> None:
    """The surrogate of one sample against the ratio, for a good and for a bad action."""
    ratio = np.linspace(0.4, 1.6, 241)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
    rows = []
    for axis, advantage in zip(axes, (1.0, -1.0), strict=True):
        plain, clipped = ratio * advantage, np.clip(ratio, 1 - clip_range, 1 + clip_range) * advantage
        counted = np.minimum(plain, clipped)
        axis.plot(ratio, plain, "--", color=GREY, label="ratio x advantage")
        axis.plot(ratio, counted, color=BLUE, lw=2.5, label="what counts: the smaller one")
        axis.axvspan(1 - clip_range, 1 + clip_range, color=ORANGE, alpha=0.15)
        axis.set(title=f"advantage {advantage:+.0f}", xlabel="ratio: new probability / old probability")
        axis.legend(fontsize=8)
        rows += [(advantage, round(r, 4), round(c, 4)) for r, c in zip(ratio, counted, strict=True)]
    axes[0].set_ylabel("gain")
    write("clipping", ("advantage", "ratio", "gain"), rows)
    save(figure, "clipping")


def exploration(sd: float = 1.0) -> None:
    """Density of an explored action when normal noise is added before the sigmoid, and after it with clipping."""
    grid = np.linspace(0.002, 0.998, 499)
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained")
    rows = []
    for axis, greedy in zip(axes, (0.05, 0.3, 0.7), strict=True):
        logit = np.log(greedy / (1 - greedy))
        before = _normal((np.log(grid / (1 - grid)) - logit) / sd) / (sd * grid * (1 - grid))
        width = 0.2  # of the same order as the other one's spread in the middle
        after = _normal((grid - greedy) / width) / width
        axis.plot(grid, before, color=BLUE, lw=2, label="noise before the sigmoid (here)")
        axis.plot(grid, after, "--", color=ORANGE, label="noise on the action, then clipped")
        axis.axvline(greedy, color=GREY, lw=0.8)
        axis.set(title=f"greedy action {greedy}", xlabel="explored action", ylim=(0, None))
        rows += [(greedy, round(a, 3), round(b, 4), round(c, 4)) for a, b, c in zip(grid, before, after, strict=True)]
    axes[0].set_ylabel("density")
    axes[0].annotate(
        "and a spike\nof 40 % at 0",
        (0.0, 2.0),
        (0.3, 8.0),
        fontsize=8,
        color=GREY,
        arrowprops={"arrowstyle": "->", "color": ORANGE},
    )
    axes[-1].set_ylim(0, 2.9)
    axes[-1].legend(fontsize=8, loc="upper left")
    write("exploration", ("greedy", "action", "density_before_sigmoid", "density_after_without_spikes"), rows)
    save(figure, "exploration")


def _normal(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


# --- Queues -----------------------------------------------------------------------------------------------------------


def queues(episodes: int = 256) -> None:
    """Work waiting at the three channels when every router chooses at random, and the straight line by hand."""
    sys.path.insert(0, str(ROOT))
    from banking.environment import TransactionRoutingEnv

    env, rng = TransactionRoutingEnv(episodes), np.random.default_rng(0)
    env.reset(seed=10_000)
    k, workloads, over = env.constants, [], False
    while not over:
        actions = rng.integers(0, k.num_channels, (episodes, k.num_routers))
        _, _, dones, info = env.step(actions)
        workloads.append(info["details"]["workload_ms"].mean(axis=0))  # (C,)
        over = dones.all()
    workloads = np.stack(workloads)  # (T, C)
    seconds = np.arange(len(workloads)) * k.step_ms / 1000
    latency = info["episode_metrics"]["latency_ms"].mean()

    per_second = sum(k.arrival_rates) * 1000 / k.step_ms / k.num_channels  # transactions a second to each channel
    growth = per_second * k.work_ms[-1] - 1000  # ms of work a second, beyond what the channel does
    by_hand = workloads[0, -1] + growth * seconds
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for c, colour in enumerate((BLUE, GREEN, ORANGE)):
        axis.plot(seconds, workloads[:, c], color=colour, lw=2, label=k.channel_names[c])
    axis.plot(seconds, by_hand, "--", color=GREY, label=f"by hand: +{growth:.0f} ms of work a second")
    axis.set(
        xlabel="seconds into the episode",
        ylabel="work waiting, ms",
        title=f"Uniform random routing: mean of {episodes} episodes, mean latency {latency:.0f} ms",
    )
    axis.legend(fontsize=9)
    names = ("seconds", *(f"workload_ms_{name}" for name in k.channel_names), "by_hand_ms")
    rows = np.column_stack([seconds, workloads, by_hand]).round(3).tolist()
    write("queues", names, rows)
    save(figure, "queues")


# --- The front page ---------------------------------------------------------------------------------------------------


def before_after() -> None:
    """Both problems before and after training, beside classical rules; medium, mean and interval of the trainings.

    A dotted line is at the rule to beat: a team whose whiskers cross it is level with it.
    """
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]
    from comparison import counted

    from core.experiment.evaluation import half_width

    table = counted()
    table = table[table["difficulty"] == "medium"]
    seeds = table[table["policy"].isin(["maddpg", "mappo"])].groupby("problem")["training_seed"].nunique().to_dict()
    retail = {
        "before training": "untrained maddpg",
        "MADDPG": "maddpg",
        "MADDPG, known consequences": "maddpg-known",
        "base-stock, newsvendor": "rule: base-stock, newsvendor",
        "base-stock, tuned": "rule: base-stock, tuned jointly",
        "adaptive base-stock, tuned": "rule: adaptive base-stock, tuned jointly",
    }
    banking = {
        "before training": "untrained mappo",
        "MAPPO": "mappo",
        "MAPPO, known consequences": "mappo-known",
        "round robin": "rule: round robin",
        "size threshold, tuned": "rule: size threshold",
        "join shortest queue": "rule: join shortest queue, own",
        "local index, tuned": "rule: local index",
    }
    panels = (
        ("retail", retail, "total_cost", "Inventory", "cost of 30 days, $", "{:.0f}"),
        ("banking", banking, "latency_ms", "Routing", "mean latency, ms", "{:.0f}"),
        ("banking", banking, "risk_violation_percent", "Routing", "time above 5 % risk, %", "{:.2f}"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), width_ratios=[1.1, 1.1, 1.0], layout="constrained")
    rows = []
    for axis, (problem, policies, metric, title, label, number) in zip(axes, panels, strict=True):
        cells = table[table["problem"] == problem]
        means = [cells.loc[cells["policy"] == policy, metric].mean() for policy in policies.values()]
        own = sum(not policy.startswith("rule: ") for policy in policies.values())
        colours = [ORANGE] + [BLUE] * (own - 1) + ["#BBBBBB"] * (len(means) - own)
        places = range(len(means))
        widths = [half_width(cells.loc[cells["policy"] == policy, metric]) for policy in policies.values()]
        axis.barh(places, means, color=colours)
        axis.errorbar(means[:own], range(own), xerr=widths[:own], fmt="none", ecolor="black", capsize=3, lw=1.2)
        axis.axvline(means[-1], color="black", linestyle=":", linewidth=1)  # the rule to beat comes last
        axis.set_yticks(places, list(policies) if metric != "risk_violation_percent" else [])
        axis.invert_yaxis()
        for place, mean, width in zip(places, means, widths, strict=True):
            axis.text(mean + np.nan_to_num(width) + 0.02 * max(means), place, number.format(mean), va="center")
        axis.set_xlim(0, 1.22 * max(means))
        axis.set_xlabel(label)
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        rows += [(problem, metric, name, f"{mean:.6g}") for name, mean in zip(policies, means, strict=True)]
    count, trainings = int(table["evaluated"].max()), min(seeds.values())
    what = f"Mean of {count} unseen episodes. Agents: mean and 95 % t interval of {trainings} trainings"
    figure.suptitle(f"{what}; rules (grey) have no training; dotted: the rule to beat", fontsize=10)
    write("before_after", ("problem", "metric", "policy", "mean"), rows)
    save(figure, "before_after")


def write(name: str, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """The numbers of a figure, beside it."""
    with open(IMAGES / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(IMAGES / f"{name}.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
