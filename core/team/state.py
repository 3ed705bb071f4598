"""A team as tensors and plain Python values, and back."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.team.adam import Adam
from core.team.config import TeamConfig
from core.team.files import (
    not_finite,
    read_tensors,
    refuse_non_finite,
    refusing_other_shapes,
    tensors_of,
    write_tensors,
)


class SavedTeam:
    """What every `AgentTeam` can do because it is tensors, plain values and one generator: stop here, go on there."""

    COUNTERS = ("environment_steps", "steps", "updates", "progress")
    SIZES = ("state_dim", "action_dim", "num_agents")

    config: TeamConfig
    networks: dict[str, Any]
    optimizers: dict[str, Adam]
    buffer: Any
    missed: list[Counter]
    generator: torch.Generator
    device: torch.device

    def seed(self, seed: int) -> None:
        """Restart the randomness of exploration and of replay sampling."""
        self.generator.manual_seed(seed)

    def random_state(self) -> Tensor:
        """The state of that randomness, to be given back to `set_random_state`."""
        return self.generator.get_state()

    def set_random_state(self, state: Tensor) -> None:
        """Continue from a saved state of randomness. One of another kind of device can only seed this one anew."""
        if state.numel() == self.generator.get_state().numel():
            self.generator.set_state(state.cpu())
        else:
            self.generator.manual_seed(zlib.crc32(state.cpu().numpy().tobytes()))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Random numbers from 0 to 1, of the team's own generator."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float32, device=self.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Random numbers of mean 0 and deviation 1, of the team's own generator."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float32, device=self.device)

    def extra_state(self) -> dict[str, Any]:
        """What an algorithm must remember besides networks, optimizers, buffer, counters and randomness."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` returned."""

    def state_dict(self, with_buffer: bool = True) -> dict[str, Any]:
        """A snapshot of everything that a bit-exact continuation needs, as tensors and plain Python values."""
        return {
            "algorithm": type(self).__name__,
            "sizes": {name: getattr(self, name) for name in self.SIZES},
            "config": self.config.as_dict(),
            "networks": {name: [s.flat.detach().clone() for s in net.stacks()] for name, net in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "buffer": self.buffer.state_dict() if with_buffer and self.buffer is not None else None,
            "counters": {name: getattr(self, name) for name in self.COUNTERS},
            "missed": [dict(missed) for missed in self.missed],
            "extra": self.extra_state(),
            "random": self.random_state(),
        }

    @refusing_other_shapes("the state")
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            ValueError: the state belongs to another algorithm or version, or to a team of other sizes or networks, or
                holds NaN or infinity.
        """
        refuse_other_version(state)
        sizes = {name: getattr(self, name) for name in self.SIZES}
        if state.get("algorithm") != type(self).__name__ or state.get("sizes") != sizes:
            raise ValueError(
                f"expected the state of a {type(self).__name__} with {sizes}, found that of a "
                f"{state.get('algorithm')} with {state.get('sizes')}; build the team that was saved"
            )
        odd = not_finite(state)
        if odd is not None:
            raise ValueError(f"{odd} holds NaN or infinity, which no saved team does; take an earlier state")
        for name, network in self.networks.items():
            saved = state["networks"].get(name, [])
            shapes, expected = [tuple(t.shape) for t in saved], [tuple(s.flat.shape) for s in network.stacks()]
            if shapes != expected:
                raise ValueError(
                    f"network {name!r}: expected parameters {expected}, found {shapes}; use the same config"
                )
            with torch.no_grad():
                for stack, tensor in zip(network.stacks(), saved, strict=True):
                    stack.flat.copy_(tensor)
        for name, optimizer in self.optimizers.items():
            _refuse_other_optimizer(name, state["optimizers"][name], optimizer)
            optimizer.load_state_dict(state["optimizers"][name])
        if state["buffer"] is not None:
            self.begin_rollouts(state["buffer"]["num_envs"])
            self.buffer.load_state_dict(state["buffer"])
        for name in self.COUNTERS:
            count = state["counters"][name]
            if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 <= count < 2**63:
                raise ValueError(f"counter {name!r}: expected a number from 0, found {count!r}")
            setattr(self, name, count)
        if len(state["missed"]) != self.num_agents or not all(isinstance(counts, dict) for counts in state["missed"]):
            raise ValueError(f"missed: expected counts of {self.num_agents} agents, found {state['missed']!r}")
        self.missed = [Counter(counts) for counts in state["missed"]]
        self.load_extra_state(state["extra"])
        self.set_random_state(state["random"])

    def save(self, path: str | os.PathLike) -> None:
        """Write the team, without its experience, to one file; atomic, readable with `weights_only=True`.

        Raises:
            OSError: the file cannot be written.
            FloatingPointError: the team holds NaN or infinity.
        """
        state = self.state_dict(with_buffer=False)
        refuse_non_finite(state)
        write_tensors(path, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device | None = None):
        """Read a team that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of an earlier version, or holds another algorithm or no team.
        """
        state = read_tensors(path)
        with refusing_other_shapes(str(path)):
            return cls._from_state(state, path, device)

    @classmethod
    def _from_state(cls, state: Any, path: str | os.PathLike, device: str | torch.device | None):
        if isinstance(state, dict) and {"agents", "history"} <= state.keys():
            raise ValueError(
                f"{path} is the checkpoint of a run, which holds more than a team: open_run(folder) of "
                "core.experiment.deployment.saved_teams opens it, and open_run(folder).agents is the team"
            )
        if not isinstance(state, dict) or state.get("algorithm") != cls.__name__:
            found = f"a {state['algorithm']}" if isinstance(state, dict) and "algorithm" in state else "something else"
            raise ValueError(f"{path}: expected a {cls.__name__} that team.save wrote, found {found}")
        refuse_other_version(state)
        refuse_oversized(state)
        team = cls(**state["sizes"], config=state["config"], device=device)
        team.load_state_dict(state)
        return team


def _refuse_other_optimizer(name: str, saved: dict[str, Any], optimizer: Adam) -> None:
    """Raise ValueError unless the saved options are the optimizer's own, but for the rate, which anneals."""
    own = [{**group, "lr": 0.0} for group in optimizer.state_dict()["param_groups"]]
    found = [{key: group.get(key) for key in own[0]} | {"lr": 0.0} for group in saved["param_groups"]]
    # As text: True is no 1, and a tensor is nothing at all.
    same = json.dumps(own, sort_keys=True) == json.dumps(found, sort_keys=True)
    rates = [(group["lr"], group["initial_lr"]) for group in saved["param_groups"]]
    same = same and all(isinstance(rate, float) and 0.0 <= rate <= first for rate, first in rates)
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    for k, state in saved["state"].items():
        same = same and (state["exp_avg"].shape, state["exp_avg_sq"].shape) == (shapes[k], shapes[k])
        same = same and state["step"].shape == () and bool(state["step"] >= 0)
    if not same:
        raise ValueError(f"optimizer {name!r}: expected the options {own} and moments of {shapes}, found others")


def refuse_oversized(state: dict[str, Any]) -> None:
    """Raise ValueError if sizes or config ask for more memory than the saved networks can have taken."""
    held = max(10_000, sum(tensor.numel() for _, tensor in tensors_of(state["networks"])))
    widths = [value for key, value in state["config"].items() if "width" in key and isinstance(value, int)]
    asked = [*state["sizes"].values(), *state["config"].get("hidden_sizes", ()), *widths]
    if any(isinstance(size, bool) or not isinstance(size, int) or size > held for size in asked):
        raise ValueError(f"sizes {state['sizes']} and widths {asked[3:]} are more than the saved networks have")


def refuse_other_version(state: dict[str, Any]) -> None:
    """Raise ValueError if an earlier version of this project saved the team, whose keys or counters are gone."""
    missing = [name for name in SavedTeam.COUNTERS if name not in state.get("counters", {})]
    if "algorithm" in state and missing:
        raise ValueError(
            f"an earlier version of this project saved this {state['algorithm']} (it has no counter {missing[0]!r}); "
            "train it anew, or load it with the version that saved it, which its run's config.json names"
        )
