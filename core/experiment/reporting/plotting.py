"""Pictures of a run. Generic: what they say (titles, labels, colours) comes from the problem's report.

Every function writes one PNG of at least 1000 pixels in width and needs no screen. Colours are those of Okabe and
Ito (2008), which people with a colour vision deficiency can tell apart.
"""

from __future__ import annotations

import io
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.experiment.tuning import plus_minus
from core.team.files import write_file

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)  # yellow is too pale for a line on white
GREY = "#666666"
FORMS = (BLUE, VERMILLION)  # of the team, in a learning curve
LEVELS = (ORANGE, GREEN, PURPLE, SKY, GREY)  # of the rules there; the bound is black
LOOKS = {  # of a series over time: how it is drawn, and the colour if it is always the same
    "line": {"linewidth": 1.6},
    "dashed": {"linewidth": 1.5, "linestyle": (0, (4, 2))},
    "area": {"step": "mid", "alpha": 0.45, "linewidth": 0},
    "bars": {"width": 0.7},
}
DPI = 120
WIDTH = 11.0  # inches: 1320 pixels


@dataclass(frozen=True)
class Panel:
    """One small chart: for bars a value per label, for time series and dots an array per name."""

    title: str
    unit: str
    values: Sequence[float] | Mapping[str, np.ndarray]
    errors: Sequence[float] | Mapping[str, np.ndarray] | None = None
    limit: tuple[str, float] | None = None  # (label, value) of a dashed line that should not be crossed
    log: bool = False
    number: str = "{:.3g}"  # how a bar's value is written above it


@dataclass(frozen=True)
class Curve:
    """One training: a value per episode, and greedy evaluations on the way where there are any."""

    episodes: np.ndarray  # (K,)
    values: np.ndarray  # (K,)
    evaluated: tuple[np.ndarray, np.ndarray] | None = None  # episodes (M,), means (M,)


def learning_curve(
    path: Path,
    forms: Mapping[str, Sequence[Curve]],
    rules: Mapping[str, float],
    *,
    title: str,
    unit: str,
    bound: tuple[str, float] | None = None,
    start: float | None = None,
) -> None:
    """What the team costs on unseen episodes while it trains, on a logarithmic axis; each rule and the bound as a line.

    A form of the training (several seeds: their mean, and each one paler) has a colour. All values are of the same
    episodes, so luck moves the curve and the lines together. Without evaluations on the way, the curve is the running
    mean of the training itself. rules: the first five are drawn. start: of the untrained team.
    """
    with _style():
        figure, (axes,) = _figure(6.0, layout=None)  # by hand: the margin on the right is for the names
        figure.subplots_adjust(left=0.085, right=0.69, bottom=0.17, top=0.89)
        for (name, curves), colour in zip(forms.items(), FORMS, strict=False):
            unseen = [curve.evaluated for curve in curves if curve.evaluated is not None and len(curve.evaluated[0])]
            name += f", mean of {len(curves)} trainings" if len(curves) > 1 else ""
            if not unseen:
                window = max(1, len(curves[0].values) // 25)
                unseen = [(c.episodes[window - 1 :], running_mean(c.values, window)) for c in curves]
                name += f", in training (running mean of {window})"
            marker = "o" if len(unseen[0][0]) <= 60 else ""
            if len(curves) > 1:
                for at, means in unseen:
                    axes.plot(at, means, color=colour, alpha=0.35, linewidth=0.9)
            at, means = mean_by_episode(unseen)
            axes.plot(at, means, marker=marker, color=colour, markersize=6, linewidth=2, label=name, clip_on=False)
        if start is not None:
            options = {"color": BLACK, "markerfacecolor": "white", "markersize": 7, "clip_on": False, "zorder": 4}
            axes.plot([0], [start], "o", label="before training, drawing its actions", **options)
        _log_axis(axes)
        axes.set_xlim(left=0, right=max(curve.episodes[-1] for curves in forms.values() for curve in curves))
        axes.locator_params(axis="x", integer=True)
        axes.set(xlabel="training episodes", ylabel=unit)
        colours = dict(zip(rules, LEVELS, strict=False))
        lines = {name: rules[name] for name in colours}
        if bound is not None:
            lines[bound[0]], colours[bound[0]] = bound[1], BLACK
        lines = {name: value for name, value in lines.items() if value > 0}  # a bound over two episodes may be below
        for name, value in lines.items():
            axes.axhline(value, color=colours[name], linewidth=1.4, linestyle=(0, (4, 2)), zorder=1)
        _name_lines(figure, axes, lines, colours)
        _title(figure, title)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.11), ncols=3, frameon=False)
        _save(figure, path)


def stacked_bars(
    path: Path,
    labels: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    differences: Sequence[tuple[float, float]],
    *,
    team: int,
    title: str,
    unit: str,
    own: int = 2,
) -> None:
    """One bar a label made of its parts, with the total at its end, and how far it is from the bar number `team`.

    Lying bars: the labels are names of policies, which do not fit under standing ones. differences: from the team's
    bar, and half their 95 % intervals, paired; a line at the team's total crosses the whiskers of whatever may be
    level with it. own: so many rows at the top are the team's.
    """
    with _style():
        figure, (axes,) = _figure(1.9 + 0.48 * len(labels))
        rows = _rows(len(labels), own)
        start = np.zeros(len(labels))
        for colour, (part, values) in zip(SERIES, parts.items(), strict=False):
            axes.barh(rows, values, left=start, height=0.62, color=colour, label=part)
            start = start + np.asarray(values, dtype=float)
        errors = _whiskers(axes, start, rows, [half for _, half in differences], team)
        for row, total, error, (mean, half) in zip(rows, start, errors, differences, strict=True):
            text = f"  {total:.1f}" if row == rows[team] else f"  {total:.1f}  ({plus_minus('{:+.1f}', mean, half)})"
            axes.text(total + error, row, text, va="center")
        _name_rows(axes, rows, labels, own)
        axes.set_xlim(0, float(np.max(start + errors)) * 1.38)
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        _title(figure, title)
        figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
        _save(figure, path)


def bar_panels(
    path: Path, labels: Sequence[str], panels: Sequence[Panel], *, team: int, title: str, note: str, own: int = 2
) -> None:
    """Panels side by side over the same labels: one quantity each, with its limit.

    errors of a panel: half the 95 % intervals of the differences from the bar number `team`, as in `stacked_bars`.
    own: so many rows at the top are the team's, the first before its training. note: below all panels.
    """
    with _style():
        figure, grid = _figure(2.3 + 0.42 * len(labels), columns=len(panels))
        rows = _rows(len(labels), own)
        for column, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            values = np.asarray(panel.values, dtype=float)
            colours = [ORANGE if i == 0 else BLUE if i < own else SKY for i in range(len(labels))]
            axes.barh(rows, values, height=0.62, color=colours)
            errors = _whiskers(axes, values, rows, panel.errors, team)
            for row, value, error in zip(rows, values, errors, strict=True):
                axes.text(value + error, row, "  " + panel.number.format(value), va="center", fontsize=10.5)
            top = float(np.max(values + errors))
            axes.set_xlim(0, (top if top > 0 else 1.0) * 1.32)  # the numbers at the bars' ends stay inside
            if panel.limit is not None:
                name, value = panel.limit
                axes.axvline(value, color=VERMILLION, linewidth=1.4, linestyle="--")
                place = {"ha": "center", "va": "bottom", "transform": axes.get_xaxis_transform()}
                axes.text(value, 1.0, name, color=VERMILLION, fontsize=10, **place)
            axes.set_title(panel.title, loc="left", fontsize=12, pad=20)
            axes.set_xlabel(panel.unit)
            _name_rows(axes, rows, labels if column == 0 else [""] * len(labels), own)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        _title(figure, title)
        figure.supxlabel(textwrap.fill(note, 120), fontsize=11)
        _save(figure, path)


def _whiskers(axes, ends: np.ndarray, rows: np.ndarray, halves: Sequence[float], team: int) -> np.ndarray:
    """Intervals at the ends of bars, and a line at the team's end -> the halves, 0 where there is none."""
    errors = np.nan_to_num(np.asarray(halves, dtype=float))  # one episode has no interval
    others = np.arange(len(rows)) != team
    axes.errorbar(ends[others], rows[others], xerr=errors[others], fmt="none", ecolor=BLACK, capsize=3, linewidth=1.2)
    axes.axvline(ends[team], color=BLACK, linewidth=0.9, linestyle=":")
    return np.where(others, errors, 0.0)


def dot_panels(path: Path, labels: Sequence[str], panels: Sequence[Panel], *, title: str) -> None:
    """Panels side by side: in the row of each label a dot per name, and a line to it from that name's first row.

    The first row is the reference, so that a line is as long as what its row changes.
    """
    with _style():
        rows, names = np.arange(len(labels), 0, -1.0), list(panels[0].values)
        offsets = 0.62 * (0.5 - (np.arange(len(names)) + 0.5) / len(names))  # from the reference row downwards
        figure, grid = _figure(2.0 + (0.3 + 0.15 * len(names)) * len(labels), columns=len(panels))
        for column, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            for row in rows[1::2]:
                axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", linewidth=0, zorder=0)
            for name, offset, colour in zip(names, offsets, SERIES, strict=False):
                values, errors = np.asarray(panel.values[name], float), np.nan_to_num(panel.errors[name])
                axes.hlines(rows[1:] + offset, values[0], values[1:], color=colour, alpha=0.4, linewidth=3)
                axes.errorbar(
                    values, rows + offset, xerr=errors, fmt="o", color=colour, markersize=5, capsize=2.5, label=name
                )
            if panel.log:
                axes.set_xscale("log")
                _plain_numbers(axes.xaxis)
            axes.set_title(panel.title, loc="left", fontsize=12)
            axes.set_xlabel(panel.unit)
            axes.set_yticks(rows, labels if column == 0 else [""] * len(labels))
            axes.set_ylim(0.5, len(labels) + 0.5)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        _title(figure, title)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        _save(figure, path)


def time_panels(
    path: Path,
    time: np.ndarray,
    panels: Sequence[Panel],
    *,
    title: str,
    xlabel: str,
    looks: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Panels below each other over one time axis; a name keeps its look in all of them.

    looks: name -> (one of LOOKS, colour); lines of different colours where it is not given.
    """
    with _style():
        figure, grid = _figure(1.3 + 1.75 * len(panels), rows=len(panels))
        names = list(dict.fromkeys(name for panel in panels for name in panel.values))
        looks = {name: ("line", SERIES[i % len(SERIES)]) for i, name in enumerate(names)} | dict(looks or {})
        drawn = {}
        for axes, panel in zip(grid, panels, strict=True):
            for name, series in panel.values.items():
                kind, colour = looks[name]
                draw = {"area": axes.fill_between, "bars": axes.bar}.get(kind, axes.plot)
                found = draw(time, series, color=colour, label=name, **LOOKS[kind])
                drawn.setdefault(name, found[0] if isinstance(found, list) else found)
            if panel.log:
                _log_axis(axes)
            if panel.limit is not None:
                name, value = panel.limit
                axes.axhline(value, color=VERMILLION, linewidth=1.3, linestyle="--")
                axes.text(1.005, value, name, color=VERMILLION, va="center", transform=axes.get_yaxis_transform())
            if not panel.log and axes.dataLim.ymin >= 0:
                axes.set_ylim(bottom=0)
            axes.set_title(panel.title, loc="left", fontsize=12)
            axes.set_ylabel(panel.unit)
            axes.margins(x=0.005)
        for axes in grid[:-1]:
            axes.tick_params(axis="x", labelbottom=False)
        grid[-1].set_xlabel(xlabel)
        figure.align_ylabels()
        _title(figure, title)
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=5, frameon=False)
        _save(figure, path)


def animation(
    path: Path,
    bars: Mapping[str, np.ndarray],
    lines: Mapping[str, np.ndarray],
    titles: Sequence[str],
    *,
    places: Sequence[str],
    units: tuple[str, str],
    headings: tuple[str, str],
    xlabel: str,
    x: np.ndarray,
    colours: Mapping[str, str],
    seconds: float = 0.4,
) -> None:
    """A GIF: a frame a moment, with grouped bars a place on the left and lines that grow over time on the right.

    Args:
        bars: name -> (T, places).
        lines: name -> (T,).
        titles: T, one a frame.
        units, headings: of the left and the right axes; xlabel and x (T,) are of the right ones.
        colours: of every name in `bars` and `lines`.
        seconds: a frame; the last one stays for two more.
    """
    from matplotlib.animation import PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _style():
        figure, (left, right) = _figure(4.6, columns=2)
        FigureCanvasAgg(figure)
        width, where = 0.8 / len(bars), np.arange(len(places))
        heights = {
            name: left.bar(where + (k + 0.5) * width - 0.4, values.max(axis=0), width, color=colours[name], label=name)
            for k, (name, values) in enumerate(bars.items())
        }
        left.set_xticks(where, [textwrap.shorten(place, 14, placeholder="...") for place in places], fontsize=10)
        curves = {
            name: right.plot(x, values, color=colours[name], linewidth=2, label=name)[0]
            for name, values in lines.items()
        }
        right.set_xlabel(xlabel)
        right.margins(x=0)
        for axes, unit, heading in zip((left, right), units, headings, strict=True):
            axes.set_ylim(bottom=0)
            axes.set_ylim(axes.get_ylim())  # the same in all frames
            axes.set_ylabel(unit)
            axes.set_title(heading, loc="left", fontsize=12)
            axes.legend(frameon=False, fontsize=10, loc="best")
        _title(figure, max(titles, key=len))
        figure.draw_without_rendering()  # finds the layout, which then holds
        figure.set_layout_engine("none")
        writer = PillowWriter(fps=1 / seconds)
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / "episode.gif"
            with writer.saving(figure, drawn, dpi=80):
                for k in [*range(len(titles)), *[-1] * round(2 / seconds)]:
                    for name, values in bars.items():
                        for bar, height in zip(heights[name], values[k], strict=True):
                            bar.set_height(height)
                    for name, values in lines.items():
                        curves[name].set_data(x[: k + 1 or None], values[: k + 1 or None])
                    _title(figure, titles[k])
                    writer.grab_frame()
            write_file(path, drawn.read_bytes())


def explanation(
    path: Path,
    shares: Mapping[str, float],
    grid: np.ndarray,
    lines: Mapping[str, np.ndarray],
    now: float,
    *,
    title: str,
    unit: str,
    added: str,
    xlabel: str,
) -> None:
    """What each input adds to a decision, as bars, and the decision as curves over one input.

    shares: input -> what it adds, in the unit `added`; drawn from the largest to the smallest.
    grid, lines: (K,) values of the input, name -> (K,) what is decided there; now: the input's present value.
    """
    ordered = sorted(shares.items(), key=lambda item: abs(item[1]))
    with _style():
        figure, (bars, curves) = _figure(5.2, columns=2)
        colours = [BLUE if share >= 0 else VERMILLION for _, share in ordered]
        bars.barh([name for name, _ in ordered], [share for _, share in ordered], color=colours)
        bars.axvline(0.0, color=GREY, linewidth=0.8)
        bars.set_title("What each changed input adds", loc="left")
        bars.set_xlabel(added)
        bars.grid(axis="y", visible=False)
        for (name, values), colour, dash in zip(
            lines.items(), SERIES, ("-", "--", "-.", ":", "-", "--", "-."), strict=False
        ):
            curves.plot(grid, values, dash, color=colour, linewidth=2.2, label=textwrap.fill(name, 30))
        curves.axvline(now, color=GREY, linewidth=1.2, linestyle=":", label="now")
        curves.set_title("All else as it is now", loc="left")
        curves.set_xlabel(xlabel)
        curves.set_ylabel(unit)
        curves.legend(frameon=False)
        _title(figure, title)
        _save(figure, path)


def _rows(count: int, own: int = 2) -> np.ndarray:
    """Heights of bars from the top; the first two, before and after the training, stand apart from the others."""
    heights = np.arange(count, 0, -1.0)
    heights[:own] += 0.4
    return heights


def _name_rows(axes, rows: np.ndarray, labels: Sequence[str], own: int = 2) -> None:
    axes.set_yticks(rows, labels)
    for name in axes.get_yticklabels()[:own]:
        name.set_fontweight("bold")


def mean_by_episode(curves: Sequence[tuple[Sequence[int], Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """The episodes at which some training was evaluated, and the mean over the trainings that were.

    They may differ: trainings of a resumed run go on with another length.
    """
    episodes, values = (np.concatenate([np.asarray(curve[k], float) for curve in curves]) for k in (0, 1))
    at = np.unique(episodes)
    return at, np.array([values[episodes == episode].mean() for episode in at])


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each `window` neighbours: (K,) -> (K - window + 1,)."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=float)]))
    return (sums[window:] - sums[:-window]) / window


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Move positions apart until neighbours are at least `gap` from each other, as little as a few sweeps allow.

    Keeps their order and stays within [low, high] when there is room for all.
    """
    order = np.argsort(positions)
    placed = np.asarray(positions, dtype=float)[order]
    gap = min(gap, (high - low) / max(1, len(placed) - 1))
    for _ in range(200):
        overlap = np.maximum(0.0, gap - np.diff(placed))
        if not overlap.any():
            break
        placed[:-1] -= overlap / 2
        placed[1:] += overlap / 2
        placed = np.clip(placed, low, high)
    for i in range(1, len(placed)):  # what the sweeps left over: upwards, then down from the top edge
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if len(placed) and placed[-1] > high:
        placed[-1] = high
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    result = np.empty_like(placed)
    result[order] = placed
    return result


def _name_lines(figure, axes, baselines: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write each line's name and value in the right margin, apart from each other, tied to its line."""
    if not baselines:
        return
    figure.canvas.draw()  # finds the limits, so that data coordinates have pixels
    axes.set_ylim(axes.get_ylim())  # and nothing drawn from here on moves them
    to_axes = axes.transAxes.inverted()
    heights = [to_axes.transform(axes.transData.transform((0, value)))[1] for value in baselines.values()]
    line_height = 11.0 * 1.45 / (figure.get_figheight() * 72 * axes.get_position().height)
    for (name, value), height, place in zip(
        baselines.items(), heights, spread(heights, line_height, 0.0, 1.0), strict=True
    ):
        axes.plot(
            [1.0, 1.03], [height, place], color=colours[name], linewidth=1.0, transform=axes.transAxes, clip_on=False
        )
        axes.text(
            1.035,
            place,
            f"{name}  {value:.3g}" if value < 1000 else f"{name}  {value:.0f}",
            color=colours[name],
            fontsize=11,
            va="center",
            transform=axes.transAxes,
        )


def _figure(height: float, rows: int = 1, columns: int = 1, layout: str | None = "constrained"):
    """A figure of the README's width and its axes as a list, row by row."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no screen, quicker to import

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False, sharex="col" if rows > 1 else False)
    return figure, list(grid.flat)


def _title(figure, title: str) -> None:
    lines = [textwrap.fill(line, 96) for line in title.split("\n")]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontweight="bold")


def _style():
    from matplotlib import rc_context

    return rc_context(
        {
            "font.size": 12,
            "text.parse_math": False,  # a dollar is a dollar
            "axes.titlesize": 13,
            "figure.titlesize": 14,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
        }
    )


def _log_axis(axes) -> None:
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)


def _plain_numbers(axis) -> None:
    """200 and 500 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _save(figure, path: Path) -> None:
    """Write the PNG in one step: a picture is whole or not there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    write_file(path, drawn.getvalue())
