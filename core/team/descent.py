"""One optimizer step: gradients averaged and clipped, a learning rate that may fall, targets that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.networks import StackedMLP
from core.team.adam import Adam
from core.team.config import TeamConfig
from core.team.heap import keep_freed_memory
from core.utils import soft_update


class Descent:
    """How every `AgentTeam` follows the gradient of a loss."""

    config: TeamConfig
    networks: dict[str, Any]
    optimizers: dict[str, Adam]
    trained: dict[str, list[StackedMLP]]
    average_hook: Callable[[list[Tensor]], None] | None
    updates: int
    progress: float

    def add_optimizer(self, name: str, networks: Sequence[str], learning_rate: float, eps: float = 1e-8) -> None:
        """Create the Adam optimizer `name` over the networks of these names."""
        keep_freed_memory()
        self.trained[name] = [stack for network in networks for stack in self.networks[network].stacks()]
        self.optimizers[name] = Adam([stack.flat for stack in self.trained[name]], learning_rate, eps)

    def move_targets(self, tau: float) -> None:
        """Move every network that is called `..._target` towards its online one by the share `tau`; 1 copies."""
        for name, target in self.networks.items():
            if name.endswith("_target"):
                targets = [stack.flat for stack in target.stacks()]
                sources = [stack.flat for stack in self.networks[name.removesuffix("_target")].stacks()]
                soft_update(targets, sources, tau)

    def descend(self, name: str, loss: Tensor, jointly: bool = False) -> float:
        """Minimise `loss` by one step of optimizer `name`; returns the largest gradient norm before clipping.

        Each member of each stack is clipped by the norm of its own gradient, a memory or a summary apart from the
        network that reads it; `jointly` clips by one norm over all parameters of the optimizer.

        Raises:
            FloatingPointError: the gradient is not finite. Nothing has been changed then.
        """
        optimizer = self.optimizers[name]
        leaves = [leaf for stack in self.trained[name] for leaf in stack.leaves]
        slopes = iter(torch.autograd.grad(loss, leaves, materialize_grads=True))
        for stack in self.trained[name]:
            torch.cat([next(slopes).flatten() for _ in stack.leaves], out=stack.flat.grad)
        if self.average_hook is not None:
            self.average_hook([stack.flat.grad for stack in self.trained[name]])
        norms = [stack.gradient_norms() for stack in self.trained[name]]  # (members,) each
        if jointly:
            total = torch.stack([norm.square().sum() for norm in norms]).sum().sqrt()
            norms = [total.expand_as(norm) for norm in norms]
        largest = float(torch.cat(norms).max())
        if not np.isfinite(largest):
            raise FloatingPointError(
                f"{type(self).__name__}: the gradient of {name!r} is {largest} at update {self.updates} (loss "
                f"{float(loss.detach())}); lower learning_rate or reward_scale, or look for huge observations, rewards"
            )
        if largest > self.config.max_grad_norm:
            for stack, norm in zip(self.trained[name], norms, strict=True):
                stack.scale_gradients((self.config.max_grad_norm / norm).clamp(max=1.0))
        optimizer.step()
        return largest

    def set_progress(self, fraction: float) -> None:
        """Told how much of the training is done (0 to 1): the clock of everything that anneals."""
        self.progress = fraction
        if self.config.anneal_learning_rate:
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * max(0.0, 1.0 - fraction)
