"""The same training shared out over processes: `torchrun --nproc-per-node=N script.py`.

Each process runs its share of the environments and keeps its own experience; gradients are averaged before every
optimizer step, so all processes hold the same networks, and count the steps of all. The first process alone evaluates
and writes. Without torchrun every function here does nothing, at no cost.

All processes must learn at the same moments. So they run equally many environments, and their episodes must last
equally long (both demos' do, being cut by the clock); another environment is refused as soon as it differs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from core.base_agent import AgentTeam
from core.experiment.runs.waits import waiting_for


def start(device: str | None = "cpu") -> str:
    """Join the processes that torchrun started; call it before the team is built. Without torchrun, do nothing.

    Args:
        device: "cpu", "cuda" or "auto". Process r of a machine takes its CUDA device r.

    Returns:
        The device for this process.
    """
    device = str(device or "cpu")
    if os.environ.get("WORLD_SIZE", "1") == "1" and "LOCAL_RANK" not in os.environ or dist.is_initialized():
        return device
    missing = [name for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:  # some clusters set it for purposes of their own
        raise ValueError(f"WORLD_SIZE is set without {', '.join(missing)}: start with torchrun, or unset WORLD_SIZE")
    local, own, gpus = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda" and gpus:
        device = f"cuda:{local % gpus}"
        torch.cuda.set_device(device)
    # Before there is a group: functions of this module keep the group they find as a default argument. Training imports
    # it by the way, and gloo's threads would outlive finish() and now and then abort the process as Python ends.
    from torch.distributed import nn  # noqa: F401

    # NCCL wants a GPU for every process; gloo also averages tensors of a GPU that processes share.
    with waiting_for("process {} waits for the others to arrive", os.environ["RANK"], advice="was one not started?"):
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") and own <= gpus else "gloo")
    return device


def finish() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _waiting_for(what: str) -> Iterator[None]:
    """Around all that needs the other processes.

    Raises:
        ConnectionError: one of them has ended.
    """
    advice = "the first one may be judging policies, or one hangs"
    try:
        with waiting_for("process {} waits for the others' {}", rank(), what, advice=advice):
            yield
    except RuntimeError as error:  # the connection is gone
        raise ConnectionError(
            f"process {rank()}: another process has ended, or cannot be reached, while {what} were exchanged; what was "
            "saved is whole: look for its own message, then continue with --resume"
        ) from error


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that evaluates, prints and writes."""
    return rank() == 0


def launcher() -> list[str]:
    """What stands before the script on a command line that starts it again as it was started; on each machine."""

    def found(name: str) -> bool:
        """Is it this Python's own that a shell would take?"""
        place = shutil.which(name)
        return place is not None and Path(place).parent == Path(sys.executable).parent

    python = "python" if found("python") else sys.executable
    if world_size() == 1:
        return [python]
    words = ["torchrun"] if found("torchrun") else [python, "-m", "torch.distributed.run"]
    machines = os.environ.get("GROUP_WORLD_SIZE", "1")
    if machines != "1":
        words += [f"--nnodes={machines}", "--rdzv-backend=c10d", f"--rdzv-endpoint={os.environ['MASTER_ADDR']}:29500"]
    return [*words, f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}"]


def share_of(num_envs: int) -> int:
    """How many of `num_envs` environments this process runs.

    Raises:
        ValueError: they cannot be shared out equally.
    """
    if num_envs % world_size():
        raise ValueError(f"num_envs: {num_envs} cannot be shared out over {world_size()} processes; take a multiple")
    return num_envs // world_size()


def share(value: Any) -> Any:
    """The first process's `value` (such as the name of the run's folder), in all processes."""
    if world_size() == 1:
        return value
    box = [value]
    with _waiting_for("values"):
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes, in all processes."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _waiting_for("results"):
        dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """True in all processes if it is True in one."""
    return any(gather(bool(flag)))


def agreed(value: int, what: str) -> int:
    """`value`, which must be the same in all processes.

    Raises:
        ValueError: it is not, in all processes: better than waiting for each other for ever.
    """
    if world_size() > 1:
        extremes = torch.tensor([value, -value])
        with _waiting_for(what):
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        high, low = int(extremes[0]), -int(extremes[1])
        if high != low:
            raise ValueError(
                f"distributed training: {what} differ between processes ({low} to {high}); it needs episodes of equal "
                "length in all environments: use one process, or let the clock cut every episode at the same step"
            )
    return value


def require_multiple(episodes: int, num_envs: int) -> None:
    """Refuse a number of episodes that leaves a round in which some processes have nothing to do."""
    together = agreed(num_envs, "environments") * world_size()
    if world_size() > 1 and episodes % together:
        raise ValueError(
            f"episodes: expected a multiple of {together} ({num_envs} environments in each of "
            f"{world_size()} processes), found {episodes}"
        )


def share_learning(agents: AgentTeam) -> None:
    """Give all processes the first one's networks, and average gradients from now on."""
    if world_size() == 1:
        return
    with _waiting_for("networks"):
        for network in agents.networks.values():
            for stack in network.stacks():
                dist.broadcast(stack.flat.data, src=0)
    agents.processes, agents.average_hook = world_size(), average


def average(tensors: list[Tensor]) -> None:
    """Replace each by its mean over the processes, in place."""
    with _waiting_for("gradients"):
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world_size()
