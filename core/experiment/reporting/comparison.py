"""What a run says at its end: the table of all policies, and sentences that compare the trained team."""

from __future__ import annotations

from collections.abc import Sequence

from core.experiment.reporting.advice import advice, level_lines
from core.experiment.reporting.tables import KNOWN, Gap, Results, gap_lines, policy_table


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
    lines = [f"\nCAUTION: {caution}"] if caution else []
    lines += [
        f"\n{results.evaluated} unseen episodes ({judged_on}), mean ± half the 95 % interval. {results.luck}\n",
        policy_table(results, columns, gap) + "\n",
    ]
    if gap is not None:
        lines += [
            f"Gap closed: 0 % is {gap.plain}, 100 % the clairvoyant bound, which nobody can beat: "
            f"{gap.bound:.4g} ± {gap.half_width:.2g} (docs/BENCHMARKS.md, section 1).\n"
        ]
    if KNOWN in results.policies:
        lines += [
            f"{KNOWN.capitalize()}: the same algorithm, episodes and seed, but in training it is\n"
            "told what every action did and what the others would have done, in place of a learnt critic. Agents see\n"
            "what they always saw.\n"
        ]
    for policy in results.trained:
        lines += [f"{policy.capitalize()} (paired on the same episodes, ± half the 95 % interval):"]
        lines += [f"  {line}" for line in gap_lines(results, rivals, gaps, policy)]
    if results.levels:
        lines += ["\nLevels of the rules (all of them, and what they mean: rules.json):", *level_lines(results)]
    judged = f"{results.evaluated} unseen episodes ({judged_on})"
    return "\n".join([*lines, "", advice(results, gaps[0], judged), *(["Mind the caution above."] if caution else [])])
