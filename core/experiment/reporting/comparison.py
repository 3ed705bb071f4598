"""What a run says at its end: the table of all policies, and sentences that compare the trained team."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from core.experiment.reporting.advice import advice, level_lines
from core.experiment.reporting.tables import KNOWN, Gap, Results, gap_lines, policy_table

WIDTH = 100  # columns of a terminal


def comparison(
    results: Results,
    columns: Sequence[tuple[str, str, str]],
    gaps: Sequence[tuple[str, ...]],
    rivals: Sequence[str],
    judged_on: str,
    gap: Gap | None = None,
    caution: str = "",
) -> str:
    """The text for the terminal.

    Args:
        columns: (header, metric, number format) of the table.
        gaps: as `gap_lines` takes them.
        rivals: the classical rules that the trained team is compared with in such words, beside the best one.
        judged_on: which episodes, in words.
        gap: from the plain rule to the bound, where one is known for these episodes.
        caution: what must be read before every result; "" for nothing.
    """
    lines = ["", wrapped(f"CAUTION: {caution}")] if caution else []
    what = f"{results.evaluated} unseen episodes ({judged_on}), mean ± half the 95 % interval. {results.luck}"
    lines += ["", wrapped(what), "", policy_table(results, columns, gap), ""]
    if gap is not None:
        bound = f"{gap.bound:.4g} ± {gap.half_width:.2g} (docs/BENCHMARKS.md, section 1)"
        what = f"Gap closed: 0 % is {gap.plain}, 100 % the clairvoyant bound, which nobody can beat: {bound}."
        lines += [wrapped(what), ""]
    if KNOWN in results.policies:
        what = "the same algorithm, episodes and seed, but in training it is told what every action did, as the "
        what += "simulator knows afterwards, in place of a learnt critic. Agents see what they always saw."
        what += f" Each episode is played {results.plays} times." if results.plays > 1 else ""
        lines += [wrapped(f"{KNOWN.capitalize()}: {what}"), ""]
    for policy in results.trained:
        lines += [f"{policy.capitalize()} (paired on the same episodes, ± half the 95 % interval):"]
        lines += [wrapped(line, "  ", "    ") for line in gap_lines(results, rivals, gaps, policy)]
    if results.levels:
        lines += [
            "\nLevels of the rules (all of them, and what they mean: rules.json):",
            *(wrapped(line, others=" " * 8) for line in level_lines(results)),
        ]
    judged = f"{results.evaluated} unseen episodes ({judged_on})"
    lines += ["", wrapped(advice(results, gaps[0], judged))]
    return "\n".join([*lines, *(["Mind the caution above."] if caution else [])])


def wrapped(text: str, first: str = "", others: str = "") -> str:
    """Text in lines of at most WIDTH columns, with an indentation of the first and of the others."""
    options = {"initial_indent": first, "subsequent_indent": others, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, **options)
