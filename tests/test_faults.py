"""Real faults of every kind, a few injections each; `python tests/faults.py` is the long form and prints its counts."""

from __future__ import annotations

import pytest
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
