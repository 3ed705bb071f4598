"""The particle worlds of the benchmarks are those of mpe2: the same seeds and actions give the same episodes."""

import numpy as np
import pytest
from conftest import script

from core.experiment.pettingzoo_adapter import from_parallel_env
from core.experiment.vector_env import VectorEnv

worlds = script("public_worlds")


@pytest.mark.parametrize(
    ("world", "module"),
    [(worlds.Spread, "simple_spread_v3"), (worlds.SpeakerListener, "simple_speaker_listener_v4")],
)
def test_a_particle_world_is_the_public_one(world, module):
    """Random actions with seeds that make agents touch: observations, rewards, masks and ends are the same."""
    public = pytest.importorskip(f"mpe2.{module}")
    copies, rng = 40, np.random.default_rng(0)
    theirs = VectorEnv([lambda: from_parallel_env(public.parallel_env(), pad_unequal=True)] * copies)
    ours = world(copies)
    for name in ("num_agents", "observation_space_size", "action_space_size"):
        assert getattr(ours, name) == getattr(theirs, name), name
    np.testing.assert_allclose(ours.reset(seed=7), theirs.reset(seed=7), atol=1e-6)
    touched = False
    for _ in range(25):
        actions = rng.integers(5, size=(copies, ours.num_agents))
        if hasattr(ours, "action_masks"):
            np.testing.assert_array_equal(ours.action_masks(), theirs.action_masks())
            actions[:, 0] %= 3
        found, wanted = ours.step(actions), theirs.step(actions)
        for own, public_one in zip(found[:2], wanted[:2], strict=True):
            np.testing.assert_allclose(own, public_one, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found[2], wanted[2])
        np.testing.assert_array_equal(found[3]["truncated"], wanted[3]["truncated"])
        touched |= world is worlds.Spread and bool((ours.apart()[1] < ours.touching).any())
    assert found[2].all()
    assert touched or world is not worlds.Spread, "no two agents touched: contacts were not compared"


def test_foraging_begins_the_same_after_any_episode():
    """lbforaging keeps its players' places over a reset, and puts nobody there; the wrapper forgets them."""
    pytest.importorskip("lbforaging")
    foraging = worlds.Foraging("Foraging-5x5-2p-2f-v3")
    firsts = []
    for seed in range(40):
        firsts.append(foraging.reset(seed=seed).copy())
        for _ in range(5):
            foraging.step(np.array([1, 2]))
    for seed, first in enumerate(firsts):
        np.testing.assert_array_equal(foraging.reset(seed=seed), first)
