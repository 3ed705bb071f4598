"""`StackedMLP`: n independent multilayer perceptrons evaluated together.

The networks of this field are tiny (64 x 64), so time goes into *calling* kernels and not into arithmetic. A team's n
actors therefore live in one stack with weights of shape (n, in, out) and one `torch.baddbmm` a layer serves them all:
about six times faster than a loop over agents, with the same numbers.

Shapes: N agents (or members), B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class StackedMLP:
    """`members` MLPs of the same sizes, with separate parameters.

    All parameters are windows into one vector `flat`, and all gradients into `flat.grad`, so that an optimizer
    step, a target update and a checkpoint are each one operation on one tensor.

    Args:
        members: number of networks n; 1 when the agents share parameters.
        sizes: widths from input to output, such as `(14, 64, 64, 1)`.
        generator: source of the random initial weights.
        output_gain: factor on the last layer's initial weights (0.01 makes a nearly uniform first policy).
        activation: between layers; the output is linear.
        device: where the parameters live.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        generator: torch.Generator,
        output_gain: float = 1.0,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        device: torch.device | str = "cpu",
    ):
        self.members, self.sizes, self.activation = members, tuple(sizes), activation
        self.shared = members == 1  # one network for all agents; twin critics of all agents set it, too
        self.owners = list(range(members))  # which members of the whole these are; a part of a SpreadMLP has some
        shapes = [
            shape
            for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
            for shape in ((members, inputs, outputs), (members, 1, outputs))  # a weight and a bias a layer
        ]
        self.counts = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(self.counts), device=device).requires_grad_()
        self.flat.grad = torch.zeros_like(self.flat)
        leaves = []
        for shape, value, gradient in zip(
            shapes, self.flat.data.split(self.counts), self.flat.grad.split(self.counts), strict=True
        ):
            leaf = value.view(shape).requires_grad_()
            leaf.grad = gradient.view(shape)  # autograd adds into flat.grad through this window
            leaves.append(leaf)
        self.layers = list(zip(leaves[::2], leaves[1::2], strict=True))
        for index, (weight, _) in enumerate(self.layers):
            last = index == len(self.layers) - 1
            _fill_orthogonal(weight, output_gain if last else math.sqrt(2.0), generator)

    def by_member(self, vector: Tensor) -> list[Tensor]:
        """Windows (members, k) into a vector laid out like `flat`: row i of each belongs to member i."""
        return [window.view(self.members, -1) for window in vector.split(self.counts)]

    def gradient_norms(self) -> Tensor:
        """Length of each member's gradient, (members,)."""
        return torch.stack([rows.norm(dim=1) for rows in self.by_member(self.flat.grad)]).norm(dim=0)

    def scale_gradients(self, factors: Tensor) -> None:
        """Multiply member i's gradient by `factors[i]`, (members,)."""
        for rows in self.by_member(self.flat.grad):
            rows.mul_(factors.unsqueeze(1))

    def __call__(self, inputs: Tensor, frozen: bool = False) -> Tensor:
        """Apply member k to `inputs[k]`.

        Args:
            inputs: (n, B, in). With one member, (N, B, in) is read as N agents that share it; with n members,
                (1, B, in) is shown to all of them.
            frozen: treat the parameters as constants, so that a loss through this stack moves only its inputs.

        Returns:
            (n, B, out), or (N, B, out) for one shared member.
        """
        groups, batch = inputs.shape[0], inputs.shape[1]
        if self.members == 1 and groups > 1:
            return self(inputs.reshape(1, groups * batch, -1), frozen).view(groups, batch, -1)
        hidden = inputs.expand(self.members, -1, -1)
        last = len(self.layers) - 1
        for index, (weight, bias) in enumerate(self.layers):
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            hidden = torch.baddbmm(bias, hidden, weight)  # (n, B, in) -> (n, B, out)
            if index < last:
                hidden = self.activation(hidden)
        return hidden

    def member(self, index: int, inputs: Tensor) -> Tensor:
        """What member `index` alone answers: (B, in) -> (B, out). This is all that an executing agent needs."""
        index = 0 if self.members == 1 else index
        hidden = inputs.unsqueeze(0)
        for position, (weight, bias) in enumerate(self.layers):
            hidden = torch.baddbmm(bias[index : index + 1], hidden, weight[index : index + 1])
            if position < len(self.layers) - 1:
                hidden = self.activation(hidden)
        return hidden.squeeze(0)

    def copy_from(self, other: StackedMLP) -> StackedMLP:
        """Take over another stack's parameters; returns self."""
        with torch.no_grad():
            self.flat.copy_(other.flat)
        return self

    def stacks(self) -> list[StackedMLP]:
        """The stacks this network is made of: itself. `SpreadMLP` has one a device."""
        return [self]


class SpreadMLP:
    """The members of one `StackedMLP` spread over several devices: a stack a device, a loop over devices only.

    Takes and returns tensors on the first device, so that an algorithm does not notice.

    Args:
        devices: one device for each member, in the order of the members.
    """

    def __init__(self, devices: Sequence[torch.device], sizes: Sequence[int], generator: torch.Generator, **options):
        self.devices = list(dict.fromkeys(devices))
        self.rows = [[i for i, device in enumerate(devices) if device == own] for own in self.devices]
        order = [row for rows in self.rows for row in rows]
        self.restore = [order.index(i) for i in range(len(order))]
        whole = StackedMLP(len(devices), sizes, generator, device=generator.device, **options)
        self.parts: list[StackedMLP] = []
        for own, rows in zip(self.devices, self.rows, strict=True):
            part = StackedMLP(len(rows), sizes, generator, device=own, **options)
            with torch.no_grad():
                for mine, all_rows in zip(part.by_member(part.flat), whole.by_member(whole.flat), strict=True):
                    mine.copy_(all_rows[rows])
            part.owners, part.shared = rows, False  # one member here, but not one for all agents
            self.parts.append(part)
        self.members, self.sizes = len(devices), tuple(sizes)

    def __call__(self, inputs: Tensor, frozen: bool = False) -> Tensor:
        """As `StackedMLP`'s call; slices travel to their device and the answers come back."""
        home, inputs = inputs.device, inputs.expand(self.members, -1, -1)
        answers = [
            part(inputs[rows].to(own), frozen).to(home)
            for part, rows, own in zip(self.parts, self.rows, self.devices, strict=True)
        ]
        return torch.cat(answers)[self.restore]

    def member(self, index: int, inputs: Tensor) -> Tensor:
        """As `StackedMLP.member`, computed where the member lives."""
        for part, rows, own in zip(self.parts, self.rows, self.devices, strict=True):
            if index in rows:
                return part.member(rows.index(index), inputs.to(own)).to(inputs.device)
        raise IndexError(f"member {index} of {self.members}")

    def copy_from(self, other: SpreadMLP) -> SpreadMLP:
        """Take over another spread stack's parameters; returns self."""
        for own, source in zip(self.parts, other.parts, strict=True):
            own.copy_from(source)
        return self

    def stacks(self) -> list[StackedMLP]:
        """One stack a device."""
        return self.parts


def make_stack(
    members: int, sizes: Sequence[int], generator: torch.Generator, devices: Sequence[torch.device], **options
) -> StackedMLP | SpreadMLP:
    """A `StackedMLP` on `devices[0]`, or a `SpreadMLP` when the members are given to different devices.

    `members` may be a multiple of `len(devices)` (twin critics): member k then lives with agent k modulo n.
    """
    if members == 1 or len(set(devices)) == 1:
        return StackedMLP(members, sizes, generator, device=devices[0], **options)
    return SpreadMLP([devices[k % len(devices)] for k in range(members)], sizes, generator, **options)


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


def _fill_orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill each member's (in, out) matrix with orthogonal columns times `gain` (Saxe et al. 2014)."""
    with torch.no_grad():
        for matrix in weight:  # at construction only
            fresh = torch.empty(matrix.shape, device=generator.device)
            nn.init.orthogonal_(fresh, gain=gain, generator=generator)
            matrix.copy_(fresh)
