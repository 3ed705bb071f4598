"""Adam by PyTorch's fused kernel: the numbers of `torch.optim.Adam(fused=True)`, bit for bit.

Not by that class: it loads PyTorch's compiler, 74 MB and a second or two in every process, and its Python takes longer
than the kernel at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BETAS = (0.9, 0.999)


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) over whole vectors; its state and group are as in PyTorch's.

    Args:
        parameters: vectors that are moved, each with a gradient.
        lr: learning rate; `initial_lr` in the group remembers it, `lr` is used and may fall.
        eps: added to the root of the second moment.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, eps: float):
        self.param_groups = [{"lr": lr, "initial_lr": lr, "betas": BETAS, "eps": eps, "params": list(parameters)}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}  # step, exp_avg, exp_avg_sq of what has moved

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters against their gradients."""
        (group,) = self.param_groups
        for parameter in group["params"]:
            if parameter not in self.state:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
            state = self.state[parameter]
            state["step"] += 1
            torch._fused_adam_(
                [parameter],
                [parameter.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"]],
                lr=group["lr"],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """A copy, with numbers in the place of parameters."""
        (group,) = self.param_groups
        parameters = group["params"]
        moved = {k: self.state[p] for k, p in enumerate(parameters) if p in self.state}
        state = {k: {name: tensor.clone() for name, tensor in of.items()} for k, of in moved.items()}
        return {"state": state, "param_groups": [{**group, "params": list(range(len(parameters)))}]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        (group,), (others,) = self.param_groups, saved["param_groups"]
        group["lr"] = others["lr"]
        self.state = {}
        for k, of in saved["state"].items():
            parameter = group["params"][k]
            self.state[parameter] = {name: t.to(parameter.device, torch.float32, copy=True) for name, t in of.items()}
