"""Public libraries at work on what speed.py gives them, by their own code.

Each maker of `MAKERS` takes (algorithm, batch, agents, observations, choices) and returns a function that does one
update, sampling included; or None where the library has no such algorithm. `LOOPS` are the same of whole training
loops: they take a number of steps last, and the function plays that many of each environment, and learns. ImportError:
it is not installed (requirements.txt). Own networks for MADDPG, shared ones elsewhere, 64-64 ReLU where the library
can; made-up data; all else as in its own settings.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

EPISODE = 25  # steps


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """`run`, as a function that returns the seconds of processor that it took: others use the machine too."""

    def once() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return once


def benchmarl(algorithm: str, batch: int, agents: int, seen: int, choices: int) -> Callable[[], object]:
    """The inner loop of its `Experiment`; for MAPPO the advantages and 4 passes.

    Its QMIX has hypernetworks of one layer and no double Q-learning, and no network here is told the agent's id.
    """
    import torch
    from benchmarl.algorithms import MaddpgConfig, MappoConfig, QmixConfig
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig
    from tensordict import TensorDict
    from torchrl.data import Bounded, Categorical, Composite, Unbounded

    on_policy, own = algorithm == "mappo", algorithm == "maddpg"
    config = ExperimentConfig.get_from_yaml()
    config.share_policy_params = not own
    config.off_policy_train_batch_size, config.off_policy_memory_size = batch, 2000
    config.on_policy_collected_frames_per_batch = config.on_policy_minibatch_size = batch
    model = MlpConfig.get_from_yaml()
    model.num_cells, model.activation_class = [64, 64], torch.nn.ReLU
    settings = {"maddpg": MaddpgConfig, "mappo": MappoConfig, "qmix": QmixConfig}[algorithm].get_from_yaml()
    if own:
        settings.share_param_critic = False
    action = Bounded(0.0, 1.0, (agents, 1)) if own else Categorical(choices, (agents,))
    group = {"agents": [f"agent_{i}" for i in range(agents)]}
    team = {"observation": Unbounded((agents, seen)), "action": action}
    specs = {key: Composite({"agents": Composite({key: spec}, shape=(agents,))}) for key, spec in team.items()}
    loop = SimpleNamespace(config=config, model_config=model, critic_model_config=model, on_policy=on_policy)
    loop.algorithm_config, loop.group_map = settings, group
    loop.observation_spec, loop.action_spec = specs["observation"], specs["action"]
    loop.state_spec = loop.action_mask_spec = None
    loop.algorithm = settings.get_algorithm(experiment=loop)
    loss, updater = loop.algorithm.get_loss_and_updater("agents")
    buffer = loop.algorithm.get_replay_buffer("agents")
    parameters = loop.algorithm.get_parameters("agents").items()
    loop.losses, loop.target_updaters, loop.replay_buffers = {"agents": loss}, {"agents": updater}, {"agents": buffer}
    loop.optimizers = {"agents": {name: torch.optim.Adam(tensors, lr=5e-4) for name, tensors in parameters}}
    loop._grad_clip, loop._on_train_step = partial(Experiment._grad_clip, loop), lambda *_: None

    size = (10, batch // 10) if on_policy else (50, 40)
    data, after = (TensorDict({"agents": TensorDict({}, (*size, agents))}, size) for _ in range(2))
    data["agents", "action"] = action.rand(size)
    for part in (data, after):
        part["agents", "observation"] = torch.randn(*size, agents, seen)
    after["agents", "reward"] = torch.randn(*size, agents, 1)
    after["done"], after["terminated"] = torch.zeros(2, *size, 1, dtype=torch.bool)
    data["next"] = after
    if on_policy:
        data["agents", "log_prob"] = torch.full((*size, agents), -math.log(choices))

    def store() -> None:
        buffer.extend(loop.algorithm.process_batch("agents", data.clone()).reshape(-1))

    def rollout() -> None:
        store()
        for _ in range(4):
            Experiment._optimizer_loop(loop, "agents")

    store()
    return rollout if on_policy else partial(Experiment._optimizer_loop, loop, "agents")


def agilerl(algorithm: str, batch: int, agents: int, seen: int, choices: int) -> Callable[[], object] | None:
    """`MADDPG.learn`, of a batch of its replay buffer. No QMIX, no MAPPO; its actors have a third layer of 64."""
    if algorithm != "maddpg":
        return None
    team, buffer = _agilerl_team(batch, agents, seen)
    return lambda: team.learn(buffer.sample(batch))


def agilerl_loop(
    algorithm: str, batch: int, agents: int, seen: int, choices: int, steps: int
) -> Callable[[], object] | None:
    """The loop of its documentation, which the library leaves to the user: act, store, sample, learn at every step."""
    if algorithm != "maddpg":
        return None
    import numpy as np
    from tensordict import TensorDict

    team, buffer = _agilerl_team(batch, agents, seen)
    names, rng = team.agent_ids, np.random.default_rng(0)
    looks = rng.standard_normal((EPISODE, agents, seen)).astype(np.float32)
    seen_by = [{name: look[i] for i, name in enumerate(names)} for look in looks]

    def train() -> None:
        for step in range(steps):
            now, then = seen_by[step % EPISODE], seen_by[(step + 1) % EPISODE]
            action, raw = team.get_action(now)
            fields = {"obs": now, "action": raw, "reward": dict.fromkeys(names, 1.0), "next_obs": then}
            row = TensorDict({key: {n: np.reshape(v[n], (1, -1)) for n in names} for key, v in fields.items()}, [1])
            row["done"] = {name: np.zeros((1, 1), np.float32) for name in names}
            buffer.add(row.float())
            team.learn(buffer.sample(batch))

    return train


def _agilerl_team(batch: int, agents: int, seen: int) -> tuple:
    """Its MADDPG, and a replay buffer that is full."""
    import torch
    from agilerl.algorithms import MADDPG
    from agilerl.components import ReplayBuffer
    from gymnasium.spaces import Box
    from tensordict import TensorDict

    names = [f"agent{i}" for i in range(agents)]  # "agent_0" and "agent_1" would share one network
    spaces = ([Box(low, high, (width,)) for _ in names] for low, high, width in ((-9.0, 9.0, seen), (0.0, 1.0, 1)))
    plain = {"hidden_size": [64], "layer_norm": False}
    network = {"latent_dim": 64, "encoder_config": plain, "head_config": plain}
    team = MADDPG(*spaces, agent_ids=names, batch_size=batch, net_config=network)
    widths = {"obs": seen, "next_obs": seen, "action": 1, "reward": 1}
    buffer = ReplayBuffer(2000)
    fields = {key: {name: torch.rand(2000, width) for name in names} for key, width in widths.items()}
    fields["done"] = {name: torch.zeros(2000, 1) for name in names}
    buffer.add(TensorDict(fields, 2000))
    return team, buffer


def xuance(algorithm: str, batch: int, agents: int, seen: int, choices: int) -> Callable[[], object]:
    """`train_epochs` of its agents, with the settings of its MPE files; for MAPPO the advantages and 4 passes."""
    import numpy as np

    own, on_policy = algorithm == "maddpg", algorithm == "mappo"
    envs = 10 if on_policy else 50
    team, names = _xuance_team(algorithm, batch, agents, seen, choices, envs)
    memory, rng = team.memory, np.random.default_rng(0)
    for key, of_agents in memory.data.items():
        for values in of_agents.values() if isinstance(of_agents, dict) else [of_agents]:
            if key == "actions" and not own:
                values[:] = rng.integers(choices, size=values.shape)
            elif key == "agent_mask":
                values[:] = True
            elif key != "terminals":
                values[:] = rng.random(values.shape)
    memory.size, filled = memory.n_size, memory.data

    def rollout() -> None:
        memory.data, memory.size = filled, memory.n_size  # train_epochs cleared it
        for e in range(envs):
            memory.finish_path(e, dict.fromkeys(names, 0.0), team.learner.value_normalizer)
        memory.start_ids[:] = 0
        team.train_epochs(4)

    return rollout if on_policy else team.train_epochs


def xuance_loop(algorithm: str, batch: int, agents: int, seen: int, choices: int, steps: int) -> Callable[[], object]:
    """Its `train`, which also writes a log for TensorBoard; QMIX learns every 25 steps, MAPPO in 4 passes."""
    team, _ = _xuance_team(algorithm, batch, agents, seen, choices, 10 if algorithm == "mappo" else 1)
    team.n_epochs, team.start_training = 4 if algorithm == "mappo" else 1, 0
    team.training_frequency = EPISODE if algorithm == "qmix" else 1

    def train() -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its bar
            team.train(steps)

    return train


def _xuance_team(algorithm: str, batch: int, agents: int, seen: int, choices: int, envs: int) -> tuple:
    """Its agents, in environments that cost next to nothing, and their names."""
    from gymnasium.spaces import Box, Discrete
    from xuance import get_arguments
    from xuance.torch import REGISTRY_Agents

    own, on_policy = algorithm == "maddpg", algorithm == "mappo"
    config = get_arguments(algorithm, "mpe", "simple_spread_v3", parser_args=SimpleNamespace())
    size = batch if on_policy else 2000
    config.parallels, config.buffer_size, config.batch_size, config.log_dir = envs, size, batch, tempfile.mkdtemp()
    config.use_parameter_sharing, config.hidden_dim_mixing_net, config.hidden_dim_hyper_net = not own, 32, 64
    config.policy = "Categorical_MAAC_Policy" if on_policy else config.policy
    vars(config).pop("normalize", None)  # LayerNorm, which the others have not
    names = [f"agent_{i}" for i in range(agents)]
    worlds = _XuanceWorlds(names, envs, seen)
    worlds.state_space = Box(-9.0, 9.0, (agents * seen,))
    worlds.observation_space = {name: Box(-9.0, 9.0, (seen,)) for name in names}
    worlds.action_space = {name: Box(0.0, 1.0, (1,)) if own else Discrete(choices) for name in names}
    return REGISTRY_Agents[algorithm.upper()](config, worlds), names


class _XuanceWorlds:
    """Copies of an environment as XuanCe's loops ask for them: observations drawn once, episodes of 25 steps."""

    max_episode_steps, buf_avail_actions = EPISODE, None

    def __init__(self, names: list[str], envs: int, seen: int):
        import numpy as np

        looks = np.random.default_rng(0).standard_normal((EPISODE, len(names), seen)).astype(np.float32)
        self.looks = [{name: look[i] for i, name in enumerate(names)} for look in looks]
        self.agents, self.num_agents, self.num_envs = names, len(names), envs
        self.states = looks.reshape(EPISODE, 1, -1).repeat(envs, axis=1)
        self.buf_obs, self.buf_state, self.t = [self.looks[0]] * envs, self.states[0].copy(), 0

    def reset(self) -> tuple:
        return self.buf_obs, {}

    def step(self, actions: list) -> tuple:
        self.t += 1
        over, now = self.t % EPISODE == 0, self.t % EPISODE
        self.buf_obs, self.buf_state = [self.looks[now]] * self.num_envs, self.states[now].copy()
        ones, no = dict.fromkeys(self.agents, 1.0), dict.fromkeys(self.agents, False)
        info = {"agent_mask": dict.fromkeys(self.agents, True), "episode_step": EPISODE, "episode_score": ones}
        info |= {"reset_obs": self.looks[0], "reset_state": self.states[0][0]}
        copies = [[value] * self.num_envs for value in (ones, no, over, info)]
        return list(self.buf_obs), *copies


PACKAGES = {"BenchMARL": "benchmarl", "XuanCe": "xuance", "AgileRL": "agilerl"}
MAKERS = {"BenchMARL": benchmarl, "XuanCe": xuance, "AgileRL": agilerl}
LOOPS = {"XuanCe": xuance_loop, "AgileRL": agilerl_loop}
