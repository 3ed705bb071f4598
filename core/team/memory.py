"""What recurrent agents remember: a GRU beside the policy, one step of it while acting, sequences of it while learning.

Shapes: N agents, B batch, E environments, T steps in a row, H memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.team.spread import make_stack


class StackedGRU:
    """`members` gated recurrent units (Cho et al. 2014, arXiv 1406.1078): a memory of H numbers that a step rewrites.

    Two one-layer stacks, since networks are saved, spread over devices and shared as stacks.

    Args:
        members, generator, devices: as for `make_stack`.
        inputs: width of what is read each step.
        width: size H of the memory.
    """

    def __init__(
        self, members: int, inputs: int, width: int, generator: torch.Generator, devices: Sequence[torch.device]
    ):
        self.width = width
        self.reads = make_stack(members, (inputs, 3 * width), generator, devices)
        self.recalls = make_stack(members, (width, 3 * width), generator, devices)

    def __call__(self, inputs: Tensor, memory: Tensor, kept: Tensor | None = None) -> Tensor:
        """Read T steps one after the other.

        Args:
            inputs: (N, T, B, in).
            memory: (N, B, H), before the first of them.
            kept: (N, T, B, 1), 0 where an episode begins: nothing, no gradient either, comes over from the step before.

        Returns:
            (N, T, B, H), the memory after each step.
        """
        read, memories = self.reads(inputs.flatten(1, 2)).unflatten(1, inputs.shape[1:3]), []  # (N, T, B, 3H)
        for t in range(inputs.shape[1]):
            if kept is not None:
                memory = memory * kept[:, t]
            memory = _gated(read[:, t], self.recalls(memory), memory)
            memories.append(memory)
        return torch.stack(memories, dim=1)

    def member(self, index: int, inputs: Tensor, memory: Tensor) -> Tensor:
        """One step of member `index` alone: (B, in) and (B, H) -> (B, H)."""
        return _gated(self.reads.member(index, inputs), self.recalls.member(index, memory), memory)


def _gated(read: Tensor, recalled: Tensor, memory: Tensor) -> Tensor:
    """The new memory, between the old one and a candidate: (..., 3H), (..., 3H), (..., H) -> (..., H)."""
    h = memory.shape[-1]
    reset, keep = torch.sigmoid(read[..., : 2 * h] + recalled[..., : 2 * h]).chunk(2, dim=-1)
    candidate = torch.tanh(read[..., 2 * h :] + reset * recalled[..., 2 * h :])
    return torch.lerp(candidate, memory, keep)


def add_memory(team: Any, suffix: str = "") -> StackedGRU:
    """Give a team a memory of H = `hidden_sizes[-1]` numbers an agent, which its policy sees beside its inputs."""
    if not team.config.hidden_sizes:
        raise ValueError("config['recurrent']: the memory is as wide as hidden_sizes[-1]; give at least one")
    members = 1 if team.config.share_parameters else team.num_agents
    gru = StackedGRU(members, team.input_dim, team.config.hidden_sizes[-1], team.generator, team.devices)
    team.networks |= {f"gru_reads{suffix}": gru.reads, f"gru_recalls{suffix}": gru.recalls}
    return gru


def remember(team: Any, observations: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Acting: take one step of the memory. (E, N, O) -> (N, E, H), and {"memories": (E, N, H)}, those before."""
    if team.gru is None:
        return None, {}
    inputs = team.agent_inputs(observations)
    before = inputs.new_zeros(*inputs.shape[:2], team.gru.width) if team.memory is None else team.memory
    if before.shape[:2] != inputs.shape[:2]:
        found = f"{before.shape[1]} environments, then {inputs.shape[1]}"
        raise ValueError(f"recurrent agents acted in {found}; call begin_episode() after every reset")
    team.memory = team.gru(inputs.unsqueeze(1), before).squeeze(1)
    return team.memory, {"memories": before.transpose(0, 1)}


def remember_alone(agent: Any, inputs: Tensor) -> Tensor:
    """Acting: one agent reads its inputs (1, in) -> its memory after it, (1, H)."""
    gru = agent.team.gru
    before = inputs.new_zeros(1, gru.width) if agent.memory is None else agent.memory
    agent.memory = gru.member(agent.index, inputs, before)
    return agent.memory


def recall(team: Any, batch: Any, gru: StackedGRU | None) -> Tensor | None:
    """Learning: the memory (N, T * B, H) after each of a batch's T steps, from the stored one before the first.

    An episode begins where the stored memory is all 0. Gradients flow back through time as far as that, or to the
    first step.
    """
    if gru is None:
        return None
    inputs = team.agent_inputs(batch.observations)
    stored = batch.memories.transpose(0, 1).unflatten(1, (batch.steps, -1))  # (N, T, B, H)
    kept = stored.any(dim=-1, keepdim=True)
    return gru(inputs.unflatten(1, (batch.steps, -1)), stored[:, 0], kept).flatten(1, 2)


def sample_sequences(buffer: Any, count: int, steps: int, generator: torch.Generator) -> Any:
    """Draw `count` sequences of T = `steps` steps, or of all there are, each of one environment, from a `ReplayBuffer`.

    Rows are (T, count) in order. A sequence may run on into the environment's next episode.
    """
    steps = min(steps, buffer.size // buffer.num_envs)
    starts = buffer.size - (steps - 1) * buffer.num_envs
    first = torch.randint(starts, (count,), generator=generator, device=buffer.device)  # rows after the oldest
    ahead = buffer.num_envs * torch.arange(steps, device=buffer.device)[:, None]
    rows = ((buffer.position - buffer.size + first + ahead) % buffer.capacity).flatten()
    return buffer.gather(rows, steps=steps)
