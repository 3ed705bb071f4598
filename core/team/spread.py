"""Where networks live: one stack on one device, or a stack a device when the agents have devices of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.networks import StackedMLP
from core.team.checks import refuse_too_large


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the `torch.device` meant by `None`, `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`.

    `None` means the CPU, which is the faster choice for networks of this size; `"auto"` takes CUDA when there
    is one.

    Raises:
        ValueError: the name is not a device, or the machine does not have it.
    """
    if device is None:
        return torch.device("cpu")
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, found {device!r}") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device: this project computes on cpu and cuda, found {device!r}; take --device cpu")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {device!r} was asked for, but this machine has {torch.cuda.device_count()} CUDA device(s) that "
            "PyTorch can use; take --device cpu, or install a CUDA build of PyTorch"
        )
    return resolved


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
    members: int,
    sizes: Sequence[int],
    generator: torch.Generator,
    devices: Sequence[torch.device],
    key: str = "hidden_sizes",
    **options,
) -> StackedMLP | SpreadMLP:
    """A `StackedMLP` on `devices[0]`, or a `SpreadMLP` when the members, one an agent, have different devices.

    Raises:
        ValueError: they do not fit into memory; `key`, the hyper-parameter that decides, is named.
    """
    weights = sum(inputs * outputs for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True))
    refuse_too_large(key, 4 * members * weights, devices[0])  # with gradients and Adam's averages
    if members == 1 or len(set(devices)) == 1:
        return StackedMLP(members, sizes, generator, device=devices[0], **options)
    return SpreadMLP(devices, sizes, generator, **options)
