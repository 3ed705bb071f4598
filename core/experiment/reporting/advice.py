"""What a planner takes home: which policy to use, how sure that is, and the levels of every tuned rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.experiment.reporting.csv_table import some
from core.experiment.reporting.tables import BEFORE, TRAINED, Results, gap_words

SHOWN = 6  # places whose levels are printed; the file has all


def advice(results: Results, gap: tuple[str, str, str], judged_on: str) -> str:
    """ "Use (s, S), tuned jointly: 2.0 % ± 0.9 cheaper than the next best, base-stock ...".

    The best policy by the reward that ranks the table, of those that act on what their agents see; where a reference
    that sees all is better, that is told too. gap: (metric, word for less of it, word for more).
    """
    able = [policy for policy in results.policies if policy not in (BEFORE, *results.all_seeing)]
    best, *others = sorted(able, key=lambda policy: -results.mean(policy, "team_return"))
    text = f"Use {_called(results, best)}"
    if others:
        words = gap_words(results, best, others[0], *gap)
        text += f": {words} than the next best, {others[0]}, on {judged_on}."
        if "(may be luck)" in words:
            text += " These two cannot be told apart here: take the one that is simpler to run."
        elif results.no_interval:
            text += " How sure that is cannot be told from so few."
    if best in TRAINED and len(results.histories) == 1:
        text += " Another training may turn out otherwise (train.py --seeds 0 1 2)."
    if best in results.levels:
        text += f" Its levels: {in_words(results.levels[best])}."
    for reference in results.all_seeing:
        if results.mean(reference, "team_return") > results.mean(best, "team_return"):
            text += (
                f" {reference.capitalize()}, which must see all queues: {gap_words(results, reference, best, *gap)}."
            )
    return text


def _called(results: Results, policy: str) -> str:
    return f"the {results.algorithm.upper()} team {policy} (checkpoint.pt)" if policy in TRAINED else policy


def level_lines(results: Results) -> list[str]:
    """A line a tuned rule."""
    width = max(map(len, results.levels), default=0)
    return [f"  {name:{width}}  {in_words(levels)}" for name, levels in results.levels.items()]


def in_words(levels: Any) -> str:
    """'min hamburg 5.1, berlin 3.2; max hamburg 9.0, berlin 7.5'; of many places the first few."""
    if isinstance(levels, list):
        return ", ".join(map(in_words, levels))
    if not isinstance(levels, Mapping):
        return f"{levels:.3g}" if isinstance(levels, float) else str(levels)
    if all(isinstance(value, (float, int)) for value in levels.values()):
        return some((f"{name} {in_words(value)}" for name, value in levels.items()), SHOWN)
    return "; ".join(f"{name}: {in_words(value)}" for name, value in levels.items())
