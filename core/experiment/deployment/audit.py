"""Is execution decentralized? `python main.py --audit RUN_FOLDER` shows it for a trained team.

Training may look at everything, but an agent must act on its own observation alone. The algorithms promise that; here
nothing is believed. Three kinds of evidence are gathered on greedy episodes of the trained team:

1. Slopes: the derivative of what decides agent i's action by every other agent's observation is exactly 0.
2. Changes: whatever the others are shown (zeros, noise, other moments, not-a-number), agent i acts the same.
3. Separation: each agent runs in a process of its own, which holds its policy alone (every other parameter is
   not-a-number there) and is sent its observations alone. The agents so separated act as the team did, and live through
   the same episode.

Exit codes: 0 every check passed; 1 a check failed, or the run cannot be read; 2 wrong usage.

Shapes: T steps, N agents, O observation, A action.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from core.base_agent import AgentTeam
from core.experiment.deployment.saved_teams import load_team, trained
from core.experiment.episodes import Episodes
from core.experiment.evaluation import EVALUATION_SEED
from core.experiment.vector_env import as_stacked
from core.team.files import read_tensors, write_tensors

ROUNDING = 1e-6  # largest difference of a continuous action that counts as the same, where bits differ
DRIFT = 1e-4  # and of an episode in which such differences add up, relative to numbers above 1
SAME = "equal bit for bit"
MOMENTS = 64  # of an episode at which slopes and changes are looked at
PROBES = 4  # random weightings of the outputs whose slopes are taken

Act = Callable[[np.ndarray, "np.ndarray | None"], np.ndarray]  # (N, O), (N, A) masks -> (N,) or (N, A)


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    passed: bool
    found: str


@dataclass
class Report:
    """What an audit found; `str(report)` is for people."""

    title: str
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Every check passed."""
        return all(check.passed for check in self.checks)

    def add(self, name: str, passed: bool, found: str) -> None:
        """Append a line."""
        self.checks.append(Check(name, bool(passed), found))

    def __str__(self) -> str:
        lines = [f"  {'pass' if c.passed else 'FAIL'}  {c.name}\n        {c.found}" for c in self.checks]
        good = "Every agent acts on its own observation alone."
        return "\n".join([self.title, *lines, good if self.passed else "NOT decentralized, see FAIL above."])


@dataclass
class Played:
    """A greedy episode, step by step."""

    observations: np.ndarray  # (T, N, O)
    masks: np.ndarray | None  # (T, N, A) bool
    actions: np.ndarray  # (T, N) integers or (T, N, A) floats
    rewards: np.ndarray  # (T, N)


def audit_team(team: AgentTeam, env: Any, seed: int = EVALUATION_SEED, separately: bool = True) -> Report:
    """Gather the evidence that every agent of `team` acts on its own observation alone.

    Args:
        team: trained or not; its randomness and device are left alone, the audit works with a copy on the CPU.
        env: a single copy (no `num_envs`) of an environment that the team fits.
        seed: of the episode.
        separately: run the third kind of evidence, N processes.

    Raises:
        ValueError: a stacked environment, or a team that cannot be copied to one device.
    """
    if getattr(env, "num_envs", None) is not None:
        raise ValueError(f"audit: expected a single environment, found num_envs={env.num_envs}; leave num_envs out")
    team = _on_cpu(team)
    team.begin_episode()
    episode = play(env, lambda seen, masks: team.select_actions(seen, training=False, action_masks=masks), seed)
    shared = "shared parameters" if team.config.share_parameters else "separate parameters"
    report = Report(
        f"{type(team).__name__}, {team.num_agents} agents, {shared}, {team.action_type} actions; episode {seed}: "
        f"{len(episode.rewards)} steps, team return {episode.rewards.sum():.6g}"
    )
    moments = np.unique(np.linspace(0, len(episode.rewards) - 1, MOMENTS).astype(int))
    seen = episode.observations[moments]
    masks = None if episode.masks is None else episode.masks[moments]
    check_slopes(report, team, seen, masks)
    check_changes(report, team, seen, masks)
    if separately:
        with tempfile.TemporaryDirectory() as folder:
            with separated(team, seen, masks, Path(folder)) as agents:
                check_separated(report, env, agents, episode, seed)
    return report


def play(env: Any, act: Act, seed: int) -> Played:
    """One whole episode of a single environment."""
    now = Episodes(as_stacked(env), [seed])
    observations, masks, actions, rewards = [], [], [], []
    while now.running:
        observations.append(now.observations[0].copy())
        masks.append(None if now.masks is None else now.masks[0].copy())
        actions.append(np.asarray(act(observations[-1], masks[-1])))
        rewards.append(now.step(actions[-1][None])[0].rewards[0])
    legal = None if now.masks is None else np.stack(masks)
    return Played(np.stack(observations), legal, np.stack(actions), np.stack(rewards))


# --- 1. slopes --------------------------------------------------------------------------------------------------------


def check_slopes(report: Report, team: AgentTeam, seen: np.ndarray, masks: np.ndarray | None) -> None:
    """Derivatives of the deciding numbers of each agent by all observations, at the moments `seen` (T, N, O)."""
    observations = torch.from_numpy(seen).requires_grad_()
    outputs = deciding(team, observations, masks)  # (T, N, K)
    generator = torch.Generator().manual_seed(0)
    own, others = 0.0, 0.0
    if outputs is not None and outputs.requires_grad:
        for i in range(team.num_agents):
            stranger = torch.arange(team.num_agents) != i
            for _ in range(PROBES):  # random weights, since the plain sum of, say, a softmax has no slope
                weights = torch.randn(outputs[:, i].shape, generator=generator)
                (slopes,) = torch.autograd.grad((weights * outputs[:, i]).sum(), observations, retain_graph=True)
                own = max(own, float(slopes[:, i].abs().max()))
                if stranger.any():
                    others = max(others, float(slopes[:, stranger].abs().max()))
    found = f"largest {others:g} (by the own: {own:.3g})"
    if own == 0.0:  # then the 0 proves nothing
        found = "nothing could be differentiated: the action has no slope by the own observation either"
    report.add("slope of an agent's outputs by the others' observations is 0", others == 0.0 and own > 0.0, found)


def deciding(team: AgentTeam, observations: Tensor, masks: np.ndarray | None) -> Tensor | None:
    """The numbers that decide the greedy actions: what `argmax` chooses from, or the continuous actions themselves.

    They are caught on the way that `select_actions` takes, so that no other way is audited than the one that acts.
    (T, N, O) -> (T, N, K); None if there are none.
    """
    legal = None if masks is None else torch.from_numpy(masks)
    with _Argmax() as scores:
        actions = _twice(team, lambda: team.act(observations, False, legal))
    caught = [score for score in (*scores.seen, actions) if score.is_floating_point() and score.requires_grad]
    caught = [score for score in caught if score.shape[:2] == observations.shape[:2]]
    return torch.cat([score.flatten(2) for score in caught], dim=-1) if caught else None


def _twice(team: AgentTeam, act: Callable[[], Any]) -> Any:
    """The actions of the second of two equal steps: what an agent remembers of the first must be its own, too."""
    team.begin_episode()
    act()
    return act()


class _Argmax(TorchFunctionMode):
    """Inside, remembers what every `argmax` was taken of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.argmax, Tensor.argmax):
            self.seen.append(args[0])
        return function(*args, **(kwargs or {}))


# --- 2. changes -------------------------------------------------------------------------------------------------------


def check_changes(report: Report, team: AgentTeam, seen: np.ndarray, masks: np.ndarray | None) -> None:
    """Show the others something else at the moments `seen` (T, N, O); agent i's action must stay, bit for bit."""
    draw = np.random.default_rng(0)
    replacements = {
        "zeros": np.zeros_like(seen),
        "noise": 100.0 * draw.standard_normal(seen.shape).astype(np.float32),
        "other moments": seen[draw.permutation(len(seen))],
        "not-a-number": np.full_like(seen, np.nan),
    }
    for training in (False, True):
        state = team.random_state()

        def act(shown, legal, training=training, state=state):
            team.set_random_state(state)  # the same exploration each time
            return _twice(team, lambda: team.actions_for(shown, training, legal))

        kept, changed = act(seen, masks), []
        for name, other in replacements.items():
            for i in range(team.num_agents):
                shown, legal = other.copy(), None if masks is None else np.ones_like(masks)
                shown[:, i] = seen[:, i]
                if masks is not None:
                    legal[:, i] = masks[:, i]
                if not np.array_equal(act(shown, legal)[:, i], kept[:, i]):
                    changed.append(f"agent {i} at {name}")
        team.set_random_state(state)
        how = "exploring" if training else "greedy"
        found = "changed: " + ", ".join(changed) if changed else f"none changed ({', '.join(replacements)})"
        report.add(f"{how} actions when the others see something else are the same", not changed, found)


# --- 3. separation ----------------------------------------------------------------------------------------------------


def check_separated(report: Report, env: Any, agents: Sequence[Any], episode: Played, seed: int) -> None:
    """The separated agents on the team's observations, and in an episode of their own."""
    try:
        answers = _ask(agents, episode.observations, episode.masks)
        _begin_episode(agents)
        alone = play(env, lambda o, m: _ask(agents, o[None], None if m is None else m[None])[0], seed)
    except (EOFError, ConnectionError):
        report.add("agents in processes of their own act at all", False, "a process ended early; see its message above")
        return
    same, found = _compare(answers, episode.actions, ROUNDING)
    report.add("in processes of their own, on the same observations, the agents act the same", same, found)
    same, found = False, f"{len(alone.rewards)} steps instead of {len(episode.rewards)}"
    if len(alone.rewards) == len(episode.rewards):
        pairs = ((getattr(alone, name), getattr(episode, name)) for name in ("actions", "observations", "rewards"))
        results = [_compare(one, other, DRIFT) for one, other in pairs]
        same = all(result[0] for result in results)
        found = next((text for _, text in results if text != SAME), SAME)
    report.add("the episode that they play together is the same", same, f"{found}, return {alone.rewards.sum():.6g}")


def _ask(agents: Sequence[Any], observations: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """Send each agent its own column of (T, N, O) -> (T, N) or (T, N, A) actions."""
    for i, agent in enumerate(agents):
        agent.send((observations[:, i], None if masks is None else masks[:, i]))
    return np.stack([agent.recv() for agent in agents], axis=1)


def _begin_episode(agents: Sequence[Any]) -> None:
    for agent in agents:
        agent.send(None)


def _compare(one: np.ndarray, other: np.ndarray, limit: float) -> tuple[bool, str]:
    if np.array_equal(one, other):
        return True, SAME
    if one.dtype.kind in "iu":
        return False, f"{np.mean(one != other):.1%} of the actions differ"
    largest = float(np.max(np.abs(one - other) / np.maximum(1.0, np.abs(other))))
    what = "rounding: sums of another order" if largest <= limit else f"the limit is {limit:g}"
    return largest <= limit, f"largest difference {largest:.2g} ({what})"


@contextmanager
def separated(team: AgentTeam, seen: np.ndarray, masks: np.ndarray | None, folder: Path) -> Iterator[list[Any]]:
    """Every agent in a process of its own: yields N connections, (T, O) observations in, T actions out."""
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the whole team
    needed = acting_networks(team, seen, masks)
    processes, connections = [], []
    try:
        for i in range(team.num_agents):
            path = folder / f"agent{i}.pt"
            write_tensors(path, agent_file(team, i, needed))
            ours, theirs = spawn.Pipe()
            processes.append(spawn.Process(target=run_agent, args=(str(path), theirs), daemon=True))
            processes[-1].start()
            theirs.close()  # so that a dead process is an EOFError here, and no wait for ever
            connections.append(ours)
        yield connections
    finally:
        for connection in connections:
            connection.close()  # the end for its process
        for process in processes:
            process.join(timeout=30)


def agent_file(team: AgentTeam, index: int, needed: Sequence[str]) -> dict[str, Any]:
    """What agent `index` is deployed with: sizes, config, its own policy; not-a-number wherever else a number was."""
    networks = {}
    for name, network in team.networks.items():
        stacks = []
        for stack in network.stacks():
            kept = torch.full_like(stack.flat, torch.nan).detach()
            if name in needed:
                for mine, whole in zip(stack.by_member(kept), stack.by_member(stack.flat.detach()), strict=True):
                    own = [stack.shared or owner % team.num_agents == index for owner in stack.owners]
                    mine[own] = whole[own]
            stacks.append(kept)
        networks[name] = stacks
    state = team.state_dict(with_buffer=False)
    return {
        "module": type(team).__module__,
        "class": type(team).__qualname__,
        "sizes": state["sizes"],
        "config": state["config"],
        "index": index,
        "networks": networks,
    }


def acting_networks(team: AgentTeam, seen: np.ndarray, masks: np.ndarray | None) -> list[str]:
    """Names of the networks without which the team cannot act: those that spoil its decisions when spoilt."""
    spoiling = []
    for name, network in team.networks.items():
        kept = [stack.flat.detach().clone() for stack in network.stacks()]
        with torch.no_grad():
            for stack in network.stacks():
                stack.flat.fill_(torch.nan)
            with _Argmax() as scores:
                team.begin_episode()
                actions = team.act(torch.from_numpy(seen), False, None if masks is None else torch.from_numpy(masks))
            if any(score.isnan().any() for score in (*scores.seen, actions)):
                spoiling.append(name)
            for stack, values in zip(network.stacks(), kept, strict=True):
                stack.flat.copy_(values)
    return spoiling


def run_agent(path: str, connection: Any) -> None:
    """The process of one agent: its file, then observations (T, O) in and actions out, until the connection closes.

    None instead of observations says that an episode begins.
    """
    torch.set_num_threads(1)
    file = read_tensors(path)
    team = getattr(importlib.import_module(file["module"]), file["class"])(**file["sizes"], config=file["config"])
    with torch.no_grad():
        for name, stacks in file["networks"].items():
            for stack, values in zip(team.networks[name].stacks(), stacks, strict=True):
                stack.flat.copy_(values)
    agent = team[file["index"]]
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        if asked is None:  # an episode begins
            agent.begin_episode()
            continue
        observations, masks = asked
        masks = [None] * len(observations) if masks is None else masks
        moments = zip(observations, masks, strict=True)
        connection.send(np.stack([agent.select_action(o, training=False, action_mask=m) for o, m in moments]))


def _on_cpu(team: AgentTeam) -> AgentTeam:
    """A copy of the team on the CPU, without its experience.

    It explores a little only: where every action is drawn blindly, nothing that the networks see could show.
    """
    if len(set(team.devices)) > 1:
        raise ValueError(f"audit: expected a team on one device, found {team.devices}; load it with device='cpu'")
    config = {**dataclasses.asdict(team.config), "epsilon": 0.1, "epsilon_min": 0.0}
    twin = type(team)(team.state_dim, team.action_dim, team.num_agents, config)
    twin.load_state_dict(team.state_dict(with_buffer=False))
    return twin


# --- the command ------------------------------------------------------------------------------------------------------


def audit(run: Path, seed: int = EVALUATION_SEED) -> bool:
    """Audit the trained teams of a run folder and print the reports -> did every check pass?

    Args:
        run: the run folder, or `results/latest`.
        seed: of the episode.

    Raises:
        ValueError: a run that cannot be read (UsageError: it is none).
    """
    return all([_audit_file(path, *rest, seed) for path, *rest in trained(run)])


def _audit_file(path: Path, config: dict[str, Any], settings: ModuleType, seed: int) -> bool:
    print(path.parent, flush=True)
    team = load_team(path, config, settings)
    env = settings.make_env(difficulty=config.get("difficulty"), data=config.get("data"), evaluation=True)
    report = audit_team(team, env, seed)
    print(f"{report}\n", flush=True)
    return report.passed
