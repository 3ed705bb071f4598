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
        activation: between layers, in place, since a product does not need its own result; the output is linear.
        device: where the parameters live.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        generator: torch.Generator,
        output_gain: float = 1.0,
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        device: torch.device | str = "cpu",
    ):
        self.members, self.sizes, self.activation = members, tuple(sizes), activation
        self.shared = members == 1  # one network for all agents
        self.owners = list(range(members))  # which members of the whole these are; a part of a SpreadMLP has some
        shapes = [
            shape
            for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
            for shape in ((members, inputs, outputs), (members, 1, outputs))  # a weight and a bias a layer
        ]
        self.counts = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(self.counts), dtype=torch.float32, device=device).requires_grad_()
        self.flat.grad = torch.zeros_like(self.flat)
        leaves = []
        for shape, value, gradient in zip(
            shapes, self.flat.data.split(self.counts), self.flat.grad.split(self.counts), strict=True
        ):
            leaf = value.view(shape).requires_grad_()
            leaf.grad = gradient.view(shape)  # autograd adds into flat.grad through this window
            leaves.append(leaf)
        self.leaves, self.layers = leaves, list(zip(leaves[::2], leaves[1::2], strict=True))
        self.slopes = self.by_member(self.flat.grad)
        for index, (weight, _) in enumerate(self.layers):
            last = index == len(self.layers) - 1
            _fill_orthogonal(weight, output_gain if last else math.sqrt(2.0), generator)

    def by_member(self, vector: Tensor) -> list[Tensor]:
        """Windows (members, k) into a vector laid out like `flat`: row i of each belongs to member i."""
        return [window.view(self.members, -1) for window in vector.split(self.counts)]

    def gradient_norms(self) -> Tensor:
        """Length of each member's gradient, (members,)."""
        norm = torch.linalg.vector_norm  # in half the time of Tensor.norm
        return norm(torch.stack([norm(rows, dim=1) for rows in self.slopes]), dim=0)

    def scale_gradients(self, factors: Tensor) -> None:
        """Multiply member i's gradient by `factors[i]`, (members,)."""
        for rows in self.slopes:
            rows.mul_(factors.unsqueeze(1))

    def __call__(self, inputs: Tensor, frozen: bool = False, ids: bool = False) -> Tensor:
        """Apply member k to `inputs[k]`.

        Args:
            inputs: (n, B, in). With one member, (N, B, in) is read as N agents that share it; with n members,
                (1, B, in) is shown to all of them.
            frozen: treat the parameters as constants, so that a loss through this stack moves only its inputs.
            ids: a shared member reads the one-hot id of the group, (N,), behind the inputs, which come without.

        Returns:
            (n, B, out), or (N, B, out) for one shared member.
        """
        groups, batch = inputs.shape[0], inputs.shape[1]
        if self.members == 1 and groups > 1 and not ids:
            return self(inputs.reshape(1, groups * batch, -1), frozen).view(groups, batch, -1)
        hidden = inputs if ids else inputs.expand(self.members, -1, -1)
        last = len(self.layers) - 1
        for index, (weight, bias) in enumerate(self.layers):
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            if ids and index == 0:  # an id only picks a row of the weights: no product with N - 1 zeros
                seen = inputs.shape[-1]
                bias, weight = bias + weight[:, seen:].transpose(0, 1), weight[:, :seen].expand(groups, -1, -1)
                hidden = torch.baddbmm(bias, inputs, weight).view(1, groups * batch, -1)
            else:
                hidden = torch.baddbmm(bias, hidden, weight)  # (n, B, in) -> (n, B, out)
            if index < last:
                hidden = self.activation(hidden)
        return hidden.view(groups, batch, -1) if ids else hidden

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


def _fill_orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill each member's (in, out) matrix with orthogonal columns times `gain` (Saxe et al. 2014)."""
    with torch.no_grad():
        for matrix in weight:  # at construction only
            fresh = torch.empty(matrix.shape, dtype=torch.float32, device=generator.device)
            nn.init.orthogonal_(fresh, gain=gain, generator=generator)
            matrix.copy_(fresh)
