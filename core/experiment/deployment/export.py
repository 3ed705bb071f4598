"""Take it with you: `python main.py --export RUN --to DIR` writes each agent as a folder that needs NumPy alone.

    DIR/warehouse-1/policy.py         the runner (see there)
                    observations.py   named inputs in units <-> the numbers of the network
                    weights.npz       this agent's own; with shared parameters, its id is part of the first bias
                    contract.json     inputs, units, ranges, greedy rule, hashes, where it comes from, metrics
                    policy.pt2        the same as a program of torch.export, observations in, actions out

Nothing is written unless what was written decides as the team does, on PARITY observations.
Shapes: B batch, N agents, O observation, K outputs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.base_agent import AgentTeam
from core.experiment.deployment import policy as runner
from core.experiment.deployment.policy import RULES, Exported, Policy
from core.experiment.deployment.saved_teams import TrainedRun, open_run
from core.experiment.runs.command import UsageError

PARITY = 10_000  # observations on which every agent is compared with the team
ROUNDING = 1e-5  # largest difference of a continuous action, and of two utilities that count as a draw
NAMES = {torch.relu_: "relu", torch.tanh_: "tanh"}  # of activations


def policy_of(team: AgentTeam, index: int) -> Policy:
    """Agent `index` of a team as NumPy arrays, its one-hot id folded into the first bias.

    Raises:
        ValueError: a policy that the runner cannot do: a recurrent one, or one of your own that acts by another rule.
    """
    if team.gru is not None:
        raise ValueError("recurrent agents remember, and the NumPy runner does not: train without recurrent to export")
    (stack,) = team.networks[team.policy].stacks()
    member = 0 if stack.shared else index
    layers = [tuple(part[member].detach().numpy().copy() for part in layer) for layer in stack.layers]
    layers = [(weight, bias[0]) for weight, bias in layers]
    if team.config.share_parameters:
        weight, bias = layers[0]
        layers[0] = (weight[: team.state_dim].copy(), bias + weight[team.state_dim + index])
    if stack.activation not in NAMES:
        raise ValueError(f"the activation {stack.activation} is unknown to the NumPy runner; it knows relu and tanh")
    outputs = np.random.default_rng(0).normal(size=(64, stack.sizes[-1])).astype(np.float32)
    decided = team.decide(torch.from_numpy(outputs), False, None).numpy()
    for rule in RULES:  # the team says nothing but what it decides: the rule that does the same is its own
        found = Policy(layers, NAMES[stack.activation], rule, team.action_dim)
        fits = rule != "levels" or (outputs.shape[1] % team.action_dim == 0 and outputs.shape[1] > team.action_dim)
        if fits and _same(found.decide(outputs), decided, outputs):
            return found
    raise ValueError(
        f"{type(team).__name__} decides by a rule that the NumPy runner does not have ({', '.join(RULES)})"
    )


def _same(one: np.ndarray, other: np.ndarray, outputs: np.ndarray) -> bool:
    """Two decisions of the same outputs (B, K) are one, but for rounding."""
    if one.shape != other.shape or (one.dtype.kind in "iu") != (other.dtype.kind in "iu"):
        return False
    if one.dtype.kind not in "iu":
        return bool(np.abs(one - other).max() <= ROUNDING)
    rows = np.arange(len(outputs))
    return bool((np.abs(outputs[rows, one] - outputs[rows, other]) <= ROUNDING).all())


class Program(nn.Module):
    """A policy for torch.export: observations (B, O) -> actions (B,) or (B, size)."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.rule, self.size, self.tanh = policy.rule, policy.size, policy.activation == "tanh"
        self.layers = nn.ModuleList(nn.Linear(*weight.shape) for weight, _ in policy.layers)

    def take(self, policy: Policy) -> None:
        """Become another agent of the same kind."""
        with torch.no_grad():
            for layer, (weight, bias) in zip(self.layers, policy.layers, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        hidden = observations
        for layer in self.layers[:-1]:
            hidden = torch.tanh(layer(hidden)) if self.tanh else torch.relu(layer(hidden))
        outputs = self.layers[-1](hidden)
        if self.rule == "argmax":
            return outputs.argmax(dim=-1)
        if self.rule == "sigmoid":
            return torch.sigmoid(outputs[..., : self.size])
        heads = outputs.unflatten(-1, (self.size, -1))
        return heads.argmax(dim=-1) / (heads.shape[-1] - 1)


def export(run: TrainedRun, out: Path) -> list[Path]:
    """Write every agent of a run -> their folders.

    Raises:
        UsageError: `out` is there and not empty.
        ValueError: a policy that cannot be exported, or what was written does not decide as the team does.
        OSError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--to {out}: it is there already; name a folder that is not, or an empty one")
    policies = [policy_of(run.agents, i) for i in range(len(run.names))]
    seen = _observations(run)  # (PARITY, N, O)
    wanted = run.agents.select_actions(seen, training=False)
    module = Program(policies[0])
    example, dynamic = torch.zeros(2, run.agents.state_dim), {"observations": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, (example,), dynamic_shapes=dynamic)  # traced once: all agents are of one kind
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        for i, policy in enumerate(policies):
            folder = Path(place) / "agents" / _folder_names(run)[i]
            folder.mkdir(parents=True)
            module.take(policy)
            _write(run, i, policy, program, folder)
            _require_parity(folder, run.names[i], seen[:, i], wanted[:, i])
        (Path(place) / "agents").chmod(0o755)
        (Path(place) / "agents").replace(out)
    return [out / name for name in _folder_names(run)]


def export_run(name: str | Path, out: Path) -> None:
    """Export the team of a run, and say what was written. Raises as `open_run` and `export` do."""
    for folder in export(open_run(name), out):
        print(folder, flush=True)
    print(f"Each decides as the team does on {PARITY:,} observations. Ask one: python {folder}/policy.py --help")


def _folder_names(run: TrainedRun) -> list[str]:
    """A folder an agent: its name, as far as every file system takes it, and its number where two would be the same."""
    plain = [re.sub(r"[^\w-]+", "-", name).strip("-") for name in run.names]
    twice = len({name.lower() for name in plain}) < len(plain) or not all(plain)
    return [f"{i + 1}-{name}" for i, name in enumerate(plain)] if twice else plain


def _observations(run: TrainedRun) -> np.ndarray:
    """(PARITY, N, O) all over what the training saw, and a little beyond."""
    draw = np.random.default_rng(0)
    low, high = np.nan_to_num(run.low, nan=-1.0), np.nan_to_num(run.high, nan=1.0)
    share = draw.uniform(-0.1, 1.1, (PARITY, *low.shape))
    return (low + share * (high - low)).astype(np.float32)


def _write(run: TrainedRun, index: int, policy: Policy, program: Any, folder: Path) -> None:
    """The files of one agent."""
    for source in (runner.__file__, run.words.__file__):
        shutil.copyfile(source, folder / Path(source).name)
    arrays = {f"weight{k}": weight for k, (weight, _) in enumerate(policy.layers)}
    np.savez(folder / "weights.npz", **arrays, **{f"bias{k}": bias for k, (_, bias) in enumerate(policy.layers)})
    torch.export.save(program, folder / "policy.pt2")
    files = sorted(path.name for path in folder.iterdir())
    contract = _contract(run, index, policy)
    contract["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    text = json.dumps(contract, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "contract.json").write_text(text + "\n", encoding="utf-8")


def _contract(run: TrainedRun, index: int, policy: Policy) -> dict[str, Any]:
    """What is promised of one agent, in plain values; null: unlimited, or not known."""
    low, typical, high = (run.units.decode(values[index]) for values in (run.low, run.typical, run.high))
    inputs = {
        name: {
            "unit": unit,
            "meaning": meaning,
            "possible": _plain(possible),
            "seen": _plain([low[name], high[name]]),
            "typical": _plain(float(np.clip(np.nan_to_num(typical[name], nan=possible[0]), *possible))),
        }
        for name, (unit, possible, meaning) in run.observations.items()
    }
    constants = {"log_speed": 1.0, **run.world["constants"], **run.world}
    return {
        "agent": run.names[index],
        "index": index,
        "decision": [run.words.DECISION, run.words.DECISION_UNIT],
        "inputs": inputs,
        "scales": {name: constants[name] for name in run.units.SCALES},
        "observation": {
            "columns": run.units.columns,
            "low": _plain(run.low[index]),
            "high": _plain(run.high[index]),
        },
        "activation": policy.activation,
        "rule": policy.rule,
        "action_size": policy.size,
        "fallback": run.words.FALLBACK,
        "trained": {
            "run": run.path.name,
            **{
                k: run.config.get(k)
                for k in ("problem", "algo", "seed", "difficulty", "episodes", "commit", "versions")
            },
        },
        "metrics": {who: {k: _plain(v) for k, v in values.items()} for who, values in run.metrics.items()},
        "parity": {"observations": PARITY, "rounding": ROUNDING},
    }


def _plain(values: Any) -> Any:
    """Numbers as JSON has them: what is not finite is null."""
    if np.ndim(values):
        return [_plain(value) for value in np.asarray(values, dtype=float).tolist()]
    return float(values) if np.isfinite(values) else None


def _require_parity(folder: Path, name: str, seen: np.ndarray, wanted: np.ndarray) -> None:
    """Read back what was written, in both forms, and compare with the team's actions on (B, O) observations.

    Raises:
        ValueError: they differ.
    """
    policy = Exported(folder).policy
    program = torch.export.load(folder / "policy.pt2").module()
    outputs = policy.outputs(seen)
    for form, actions in (
        ("weights.npz", policy.act(seen)),
        ("policy.pt2", program(torch.from_numpy(seen)).detach().numpy()),
    ):
        if not _same(actions, wanted, outputs):
            raise ValueError(f"{name}: {form} does not decide as the team does: nothing was exported")
