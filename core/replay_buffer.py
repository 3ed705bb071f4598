"""Where experience waits to be learnt from.

`ReplayBuffer` keeps joint transitions for the off-policy algorithms: one row holds what *all* agents saw at one
instant, so that a sample has one time index for all of them. `RolloutBuffer` keeps a time-major chunk of steps for
the on-policy algorithm and forgets it after learning.

Shapes: B batch, T time, E environments, N agents, O observation, A action, S state.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from core.base_agent import Transition
from core.team.checks import refuse_too_large


@dataclass
class Batch:
    """Joint transitions, ready for a loss."""

    observations: Tensor  # (B, N, O)
    actions: Tensor  # (B, N) integers, or (B, N, A) floats
    rewards: Tensor  # (B, N)
    next_observations: Tensor  # (B, N, O)
    terminated: Tensor  # (B, N), 1 where nothing follows
    active: Tensor  # (B, N), 0 for agents that had finished before
    states: Tensor | None = None  # (B, S)
    next_states: Tensor | None = None  # (B, S)
    action_masks: Tensor | None = None  # (B, N, A) bool
    next_action_masks: Tensor | None = None  # (B, N, A) bool
    memories: Tensor | None = None  # (B, N, H), of recurrent agents before the step; 0 where an episode begins
    consequences: Tensor | None = None  # (B, N, A), what each action did, where the environment said so
    steps: int = 1  # T of recurrent agents, whose rows are (T, B / T) in order
    pairs: bool = False  # row b of each half is of two copies that met the same chance, at the same step


class _Rows:
    """Named fields of equally many rows, made when the first values come and saved as far as they are filled."""

    key: ClassVar[str]  # the hyper-parameter that decides the capacity

    def __init__(self, capacity: int, num_envs: int = 1, device: torch.device | str = "cpu"):
        self.capacity, self.num_envs, self.device = capacity, num_envs, device
        self.fields: dict[str, Tensor] = {}
        self.position = self.size = 0  # the next row to write; rows that hold something

    def __len__(self) -> int:
        return self.size

    def tensors(self, transition: Transition, acting: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a step brings, by name: E rows of each field, and what the agents alone knew as they acted."""
        kept = {name: array for name, array in vars(transition).items() if name != "consequences"}  # of an episode
        arrays = {name: np.ascontiguousarray(array) for name, array in kept.items() if array is not None}
        rows = len(arrays["rewards"])
        if rows != self.num_envs:
            raise ValueError(f"transition: expected {self.num_envs} environments, found {rows}; call begin_rollouts")
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | acting

    def allocate(self, name: str, like: Tensor, row: torch.Size) -> None:
        """Room for one field, of numbers that losses reckon with; masks and choices stay what they are."""
        floating = like.is_floating_point() or not (name == "actions" or "masks" in name)
        dtype = torch.float32 if floating else like.dtype
        refuse_too_large(self.key, self.capacity * math.prod(row), self.device)
        self.fields[name] = torch.zeros((self.capacity, *row), dtype=dtype, device=self.device)

    def filled(self) -> dict[str, Tensor]:
        """The rows of every field that hold something."""
        return {name: tensor[: self.size] for name, tensor in self.fields.items()}

    def state_dict(self) -> dict[str, Any]:
        """The rows that hold something, and where writing goes on."""
        fields = {name: tensor.clone() for name, tensor in self.filled().items()}
        sizes = {"capacity": self.capacity, "num_envs": self.num_envs, "position": self.position, "size": self.size}
        return sizes | {"fields": fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            ValueError: what was saved is of another capacity, so its rows would be replaced at other times.
        """
        room = state["capacity"]
        if room != self.capacity:
            raise ValueError(f"{self.key}: expected room for {room} rows as in what was saved, found {self.capacity}")
        for name in ("position", "size"):
            if type(state[name]) is not int or not 0 <= state[name] <= room:
                raise ValueError(f"{self.key}: expected {name} from 0 to {room}, found {state[name]!r}")
        self.position, self.size, self.fields = state["position"], state["size"], {}
        lacking = {"observations", "actions", "rewards", "active"} - set(state["fields"]) if self.size else set()
        if lacking or any(saved.ndim < 2 or len(saved) != self.size for saved in state["fields"].values()):
            raise ValueError(f"{self.key}: expected {self.size} rows of every field as in what was saved, found others")
        for name, saved in state["fields"].items():
            self.allocate(name, saved, saved.shape[1:])
            self.fields[name][: self.size] = saved


class ReplayBuffer(_Rows):
    """The latest `capacity` joint transitions, sampled uniformly (Lin 1992; Mnih et al. 2015).

    The E rows of one step lie side by side, so the step after row j of the same environment is row j + E.

    Args:
        capacity: transitions kept; rounded down to a multiple of `num_envs`.
        num_envs: environments E that run side by side.
        device: where the tensors live.
    """

    key = "buffer_size"

    def __init__(self, capacity: int, num_envs: int = 1, device: torch.device | str = "cpu"):
        super().__init__(max(1, capacity // num_envs) * num_envs, num_envs, device)
        self.waiting = False  # some row is of an episode that was over, and only waited for those beside it

    def add(self, transition: Transition, **acting: Tensor) -> None:
        """Store one step of all E environments over the oldest rows, with what the agents alone knew as they acted."""
        for name, tensor in self.tensors(transition, acting).items():
            if name not in self.fields:
                self.allocate(name, tensor, tensor.shape[1:])
            self.fields[name][self.position : self.position + self.num_envs] = tensor
        self.position = (self.position + self.num_envs) % self.capacity
        self.size = min(self.size + self.num_envs, self.capacity)
        self.waiting = self.waiting or not bool(transition.active.any(axis=1).all())
        if transition.consequences is not None:
            self.look_back(torch.from_numpy(transition.consequences))

    def look_back(self, consequences: Tensor) -> None:
        """Write beside each step of the episodes that have just ended what its actions did, (E, T, N, A)."""
        known = consequences.transpose(0, 1).flatten(0, 1)[-self.capacity :]  # in the order of the rows
        if "consequences" not in self.fields:
            self.allocate("consequences", known, known.shape[1:])
        rows = (self.position - len(known) + torch.arange(len(known), device=self.device)) % self.capacity
        self.fields["consequences"][rows] = known.to(self.fields["consequences"])

    def sample(self, batch_size: int, generator: torch.Generator, pairs: bool = False) -> Batch:
        """Draw `batch_size` rows with replacement, among those in which somebody is active.

        With `pairs`, `batch_size` / 2 pairs are drawn instead: the same step of the environments 2k and 2k + 1, in
        the first and in the second half of the batch. Both must be active; of an odd number of environments the last
        is left out.
        """
        rows = self._drawable(pairs)
        count = self.size if rows is None else len(rows)
        if not count:
            what = "steps at which two neighbouring copies both run" if pairs else "transitions"
            raise ValueError(f"the replay buffer holds no {what}: observe some before learning from it")
        draws = batch_size // 2 if pairs else batch_size
        drawn = torch.randint(count, (draws,), generator=generator, device=self.device)
        rows = drawn if rows is None else rows[drawn]
        rows = torch.cat([rows, rows + 1]) if pairs else rows
        return self.gather(rows, pairs=pairs)

    def _drawable(self, pairs: bool) -> Tensor | None:
        """The rows to draw from, or the first rows of the pairs; None: all."""
        if not pairs:
            return self.fields["active"][: self.size].any(dim=1).nonzero().squeeze(1) if self.waiting else None
        rows = torch.arange(self.size, device=self.device).view(-1, self.num_envs)  # (steps, E)
        first = rows[:, : self.num_envs // 2 * 2 : 2].flatten()
        if not self.waiting:
            return first
        active = self.fields["active"].any(dim=1)
        return first[active[first] & active[first + 1]]

    def gather(self, rows: Tensor, **values: Any) -> Batch:
        """A batch of these rows, (B,)."""
        names = [field.name for field in dataclasses.fields(Batch) if field.name in self.fields]
        return Batch(**{name: self.fields[name].index_select(0, rows) for name in names}, **values)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `_Rows.load_state_dict`."""
        super().load_state_dict(state)
        self.waiting = self.size > 0 and not bool(self.fields["active"][: self.size].any(dim=1).all())


class RolloutBuffer(_Rows):
    """T consecutive steps of E environments, time first, as the current policy produced them.

    Args:
        capacity: steps T of a chunk.
        num_envs: environments E that run side by side.
        device: where the tensors live.
    """

    key = "rollout_length"

    @property
    def full(self) -> bool:
        """The chunk has all its T steps."""
        return self.size == self.capacity

    def add(self, transition: Transition, **acting: Tensor) -> None:
        """Store one step, with what the policy alone knew when it acted: its own form of the actions among it."""
        for name, tensor in self.tensors(transition, acting).items():
            if name not in self.fields:
                self.allocate(name, tensor, tensor.shape)
            self.fields[name][self.position] = tensor
        self.position = self.size = self.position + 1

    def clear(self) -> None:
        """Forget the chunk."""
        self.position = self.size = 0
