"""Real faults of every kind, a few injections each; `python tests/faults.py` is the long form and prints its counts."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from faults import KINDS, World, inject

QUICK = 4  # injections of a kind


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind, world):
    outcomes = inject(world, kind, seed=0, at_most=QUICK)
    lost = [(words, answer) for words, answer in outcomes if answer is not True]
    print(f"{len(outcomes)} injected, {len(lost)} lost: {kind}")
    assert not lost


def test_the_readme_states_each_promise_in_these_words_and_adds_its_counts_up():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page[page.index("## What holds under faults") : page.index("## Where to read on")]
    counted = re.findall(r"^- (.+) \((\d+)\)$", section, re.MULTILINE)
    assert [kind for kind, _ in counted] == list(KINDS) and f"{len(KINDS)} kinds" in section
    assert f"{sum(int(number) for _, number in counted):,} injections" in section
    own = re.findall(r"^- (.+) \(`(tests/\w+\.py)`\)$", section, re.MULTILINE)
    assert own and len(counted) + len(own) == section.count("\n- ")
    for words, file in own:
        assert f"def test_{words.replace(' ', '_')}(" in (ROOT / file).read_text(encoding="utf-8"), words
