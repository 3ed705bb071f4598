"""Buffers: what comes out is what went in, of one instant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.base_agent import Transition
from core.replay_buffer import ReplayBuffer, RolloutBuffer


def instant(time: int, num_envs: int = 1, num_agents: int = 2, **fields) -> Transition:
    """The step at `time`: environment e and agent i put 100 e + 10 i + time into every field."""
    code = 100 * np.arange(num_envs)[:, None] + 10 * np.arange(num_agents) + time  # (E, N)
    flags = np.zeros((num_envs, num_agents), bool)
    given = {
        "observations": code[..., None].astype(np.float32),
        "actions": code,
        "rewards": code.astype(np.float32),
        "next_observations": code[..., None].astype(np.float32) + 1,
        "terminated": flags,
        "truncated": flags,
        "active": ~flags,
    }
    return Transition(**{**given, **fields})


def filled(times: int, capacity: int = 100, num_envs: int = 1, ends: dict[int, str] | None = None) -> ReplayBuffer:
    """A buffer that saw `times` instants; `ends` says where an episode ended, and how."""
    buffer = ReplayBuffer(capacity, num_envs)
    for time in range(times):
        over = np.ones((num_envs, 2), bool)
        buffer.add(instant(time, num_envs, **({ends[time]: over} if ends and time in ends else {})))
    return buffer


def sample(buffer: ReplayBuffer, size: int = 2000):
    return buffer.sample(size, torch.Generator().manual_seed(0))


# --- single rows ------------------------------------------------------------------------------------------------------


def test_a_sample_has_one_time_and_one_environment_for_all_agents_and_all_fields():
    batch = sample(filled(20, num_envs=3))
    code = batch.observations[..., 0]  # (B, N)
    assert torch.equal(code[:, 1], code[:, 0] + 10)  # both agents at the same instant of the same environment
    assert torch.equal(batch.rewards, code) and torch.equal(batch.actions.float(), code)
    assert torch.equal(batch.next_observations[..., 0], code + 1)
    assert len(code[:, 0].unique()) == 60  # every stored row can be drawn


def test_rows_are_drawn_uniformly_and_repeatably():
    buffer = filled(10)
    counts = torch.bincount(sample(buffer, size=20_000).observations[:, 0, 0].long(), minlength=10)
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5  # five deviations of a binomial
    assert torch.equal(sample(buffer).rewards, sample(buffer).rewards)


def test_an_odd_batch_of_pairs_is_one_row_smaller():
    buffer = filled(10, num_envs=2)
    batch = buffer.sample(7, torch.Generator().manual_seed(0), pairs=True)
    assert len(batch.rewards) == 6


def test_the_oldest_rows_are_overwritten():
    batch = sample(filled(25, capacity=10))
    assert batch.observations[:, 0, 0].min() == 15 and batch.observations[:, 0, 0].max() == 24


def test_rows_in_which_nobody_was_active_are_never_drawn():
    buffer, copy = ReplayBuffer(100, num_envs=2), ReplayBuffer(100, num_envs=2)
    for time in range(10):  # the second environment waits from time 3 on; of the first, one agent has finished
        buffer.add(instant(time, 2, active=np.array([[True, False], [time < 3, time < 3]])))
    copy.load_state_dict(buffer.state_dict())
    drawn = sample(buffer).observations[:, 0, 0]
    assert set(drawn.tolist()) == {*range(10), 100, 101, 102}
    assert torch.equal(drawn, sample(copy).observations[:, 0, 0])


def test_the_capacity_is_a_whole_number_of_steps():
    buffer = filled(7, capacity=10, num_envs=4)
    assert buffer.capacity == 8 and len(buffer) == 8
    assert set(sample(buffer).observations[:, 0, 0].tolist()) == {e * 100 + t for e in range(4) for t in (5, 6)}


def test_numbers_are_kept_in_single_precision_and_masks_and_actions_as_they_are():
    buffer, masks = ReplayBuffer(10), np.array([[[True, False], [False, True]]])
    wide = instant(0).observations.astype(np.float64)
    buffer.add(instant(0, observations=wide, action_masks=masks, next_action_masks=~masks, states=np.ones((1, 3))))
    batch = sample(buffer, size=1)
    assert batch.observations.dtype == batch.states.dtype == batch.terminated.dtype == torch.float32
    assert batch.actions.dtype == torch.int64 and batch.action_masks.dtype == torch.bool
    assert torch.equal(batch.action_masks, ~batch.next_action_masks) and batch.next_states is None


def test_an_empty_buffer_and_a_wrong_number_of_environments_are_refused():
    with pytest.raises(ValueError, match="buffer holds no transitions"):
        sample(ReplayBuffer(10))
    with pytest.raises(ValueError, match="expected 2 environments, found 1"):
        ReplayBuffer(10, num_envs=2).add(instant(0))


def test_a_saved_buffer_goes_on_as_if_never_interrupted():
    buffer, copy = filled(25, capacity=10), ReplayBuffer(10)
    copy.load_state_dict(buffer.state_dict())
    for time in (25, 26, 27):
        buffer.add(instant(time))
        copy.add(instant(time))
        assert torch.equal(sample(buffer).rewards, sample(copy).rewards)


# --- pairs ------------------------------------------------------------------------------------------------------------


def drawn_pairs(buffer: ReplayBuffer, size: int = 2000) -> torch.Tensor:
    """The codes (environment and time) of agent 0 in both halves of a batch of pairs, (2, B / 2)."""
    batch = buffer.sample(size, torch.Generator().manual_seed(0), pairs=True)
    assert batch.pairs and len(batch.rewards) == size
    return batch.observations[:, 0, 0].view(2, -1)


@pytest.mark.parametrize("num_envs", [2, 4, 5])
def test_a_pair_is_the_same_step_of_two_neighbouring_copies(num_envs):
    first, second = drawn_pairs(filled(10, num_envs=num_envs))
    assert torch.equal(second, first + 100)  # the next environment, the same time
    assert set((first // 100).tolist()) == set(range(0, num_envs - 1, 2))  # 0 and 1, 2 and 3, ...; 4 has no partner
    assert len(first.unique()) == 10 * (num_envs // 2)  # every pair can be drawn


def test_an_episode_that_is_over_has_no_partner():
    buffer = ReplayBuffer(100, num_envs=2)
    for time in range(10):
        buffer.add(instant(time, 2, active=np.array([[True, True], [time < 3, time < 3]])))
    first, _ = drawn_pairs(buffer)
    assert set(first.tolist()) == {0, 1, 2}


# --- consequences -----------------------------------------------------------------------------------------------------


def test_consequences_come_at_the_end_and_belong_to_the_steps_before():
    """Two copies, episodes of three steps, room for four: of the second episode all, of the first the last step."""
    buffer = ReplayBuffer(8, num_envs=2)
    for time in range(6):
        told = None
        if time in (2, 5):  # (E, T, N, A), of each step what `instant` puts into its observation
            told = np.stack([instant(t, 2).observations for t in (time - 2, time - 1, time)], axis=1)
        buffer.add(instant(time, 2, consequences=told))
    batch = sample(buffer)
    assert torch.equal(batch.consequences, batch.observations)
    assert set(batch.observations[:, 0, 0].tolist()) == {2, 3, 4, 5, 102, 103, 104, 105}


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_a_rollout_is_time_major_and_keeps_what_was_known_when_acting():
    buffer = RolloutBuffer(3, num_envs=2)
    for time in range(3):
        assert not buffer.full
        buffer.add(instant(time, 2), log_probs=torch.full((2, 2), -float(time)), actions=torch.full((2, 2), time + 0.5))
    assert buffer.full and len(buffer) == 3
    stored = buffer.filled()
    assert stored["rewards"][:, 1, 0].tolist() == [100.0, 101.0, 102.0]
    assert stored["log_probs"][:, 0, 0].tolist() == [0.0, -1.0, -2.0]
    assert stored["actions"][:, 0, 0].tolist() == [0.5, 1.5, 2.5]  # the policy's raw action, not the environment's
    assert "action_masks" not in stored


def test_a_cleared_rollout_shows_nothing_of_the_old_one():
    buffer = RolloutBuffer(3, num_envs=1)
    for time in range(3):
        buffer.add(instant(time))
    buffer.clear()
    buffer.add(instant(7))
    assert len(buffer) == 1 and buffer.filled()["rewards"][:, 0, 0].tolist() == [7.0]


def test_a_half_full_rollout_is_saved_and_goes_on():
    buffer, copy = RolloutBuffer(3, num_envs=1), RolloutBuffer(3, num_envs=1)
    buffer.add(instant(0))
    copy.load_state_dict(buffer.state_dict())
    for time in (1, 2):
        buffer.add(instant(time))
        copy.add(instant(time))
    assert copy.full and torch.equal(buffer.filled()["rewards"], copy.filled()["rewards"])
