"""What TransactionRoutingEnv promises: queues, risk, rewards and observations follow the written rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from banking.environment import TransactionRoutingEnv
from banking.traffic import AMOUNT, ARRIVAL, HALF_SIZE, SERVICE, URGENT, WEIGHT


def play(env, actions, seed=0):
    """Play given actions (steps, ..., N); returns all observations, rewards and infos."""
    observations, rewards, infos = [env.reset(seed=seed)], [], []
    for action in actions:
        observation, reward, _, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        infos.append(info)
    return np.array(observations), np.array(rewards), infos


def random_actions(steps, *shape, seed=1):
    return np.random.default_rng(seed).integers(0, 3, (steps, *shape))


def detail(infos, name):
    return np.array([info["details"][name] for info in infos])


# ------------------------------------------------------------------ an independent, slow copy of the rules


class Reference:
    """The rules of one copy written once more with plain loops, for comparison. Traffic comes from the environment."""

    def __init__(self, env):
        self.k, self.ep, self.t = env.constants, env.episodes, 0
        k = self.k
        self.N, self.C, self.T = k.num_routers, k.num_channels, k.episode_steps
        self.queues = [[] for _ in range(self.N)]
        self.work = [float(v) for v in self.ep.initial_workload[0]]
        self.sent = []  # (due, router, channel, latency without age)
        self.average = np.zeros((self.N, self.C))
        self.flags = np.zeros((self.N, self.C))
        self.arrival_average = np.array([k.load * r for r in k.arrival_rates])
        keep = math.exp(-k.step_ms / k.risk_memory_ms)
        self.mass = self.arrival_average * k.mean_amounts / (1 - keep)
        self.risk_mass = k.initial_risk * self.mass
        self.rows = [int(row) for row in self.ep.first[0]]
        self.latency_sum = self.latency_count = 0.0
        self.arrive()

    def arrive(self):
        for i in range(self.N):
            arrivals = int(self.ep.counts[self.t, 0, i])
            for _ in range(arrivals):
                self.queues[i].append(self.ep.transactions[self.rows[i]])
                self.rows[i] += 1
            if self.t < self.T:
                self.arrival_average[i] += self.k.arrival_memory * (arrivals - self.arrival_average[i])
        for entry in sorted(e for e in self.sent if e[0] <= self.t):
            _, _, i, c, latency = entry
            self.average[i, c] += self.k.latency_memory * (latency - self.k.base_latency_ms[c] - self.average[i, c])
            self.sent.remove(entry)

    def wait(self, c, work):
        t, passed = self.t, 0.0
        while t < self.T:
            possible = self.ep.served[t, 0, c]
            if possible > 0 and work <= possible:
                return passed + work / possible * self.k.step_ms
            if work == 0:
                return passed
            work, passed, t = work - possible, passed + self.k.step_ms, t + 1
        return passed + work

    def step(self, actions, ack_delay=0):
        k, keep = self.k, math.exp(-self.k.step_ms / self.k.risk_memory_ms)
        own, shared = np.zeros(self.N), 0.0
        self.mass, self.risk_mass = keep * self.mass, keep * self.risk_mass
        self.latency_sum, self.latency_count = keep * self.latency_sum, keep * self.latency_count
        self.flags *= k.refusal_memory
        for turn in range(self.N):
            i = (self.t + turn) % self.N
            c = int(actions[i])
            if not self.queues[i]:
                continue
            if self.work[c] > k.buffer_ms[c]:
                own[i] += k.refusal_cost
                self.flags[i, c] = 1
                continue
            head = self.queues[i].pop(0)
            wait, age = self.wait(c, self.work[c]), k.step_ms * (self.t - head[ARRIVAL])
            self.work[c] += np.rint(k.work_ms[c] * head[SERVICE] * 2**20) / 2**20
            weight = k.urgent_weight if head[URGENT] else k.standard_weight
            own[i] += weight * (k.base_latency_ms[c] + wait) / 100 + k.fee_weight * k.fees[c]
            due = self.t + math.ceil((k.base_latency_ms[c] + wait) / k.step_ms) + ack_delay
            self.sent.append((due, self.t, i, c, k.base_latency_ms[c] + wait))
            exposure = 1 + k.delay_risk * min((age + wait) / 1000, k.delay_risk_limit_s)
            self.mass[i] += head[AMOUNT]
            self.risk_mass[i] += head[AMOUNT] * k.risk_rates[c] * 2 * head[HALF_SIZE] * exposure
            self.latency_sum += age + k.base_latency_ms[c] + wait
            self.latency_count += 1
        pending = np.array([len(queue) for queue in self.queues])
        own += pending * k.step_ms / 100
        if self.t == self.T - 1:
            own += k.leftover_cost * pending
        risk = self.risk_mass.sum() / self.mass.sum()
        shared = 3.0 * (risk > 0.05) + 2.0 * min(max((risk - 0.03) / 0.02, 0), 2)
        self.work = [max(0.0, v - self.ep.served[self.t, 0, c]) for c, v in enumerate(self.work)]
        self.t += 1
        self.arrive()
        return -(0.5 * own + 0.5 * own.mean() + shared)

    def observe(self):
        rows = []
        for i, queue in enumerate(self.queues):
            row = [0.3 * min(len(queue), 20), float(bool(queue)), 0.0, 0.0, 0.0, 0.0]
            if queue:
                head = queue[0]
                age = min(self.k.step_ms * (self.t - head[ARRIVAL]), 1000)
                row[2:] = [math.log10(head[AMOUNT] / 87), head[HALF_SIZE], head[URGENT], age / 200]
            row += [0.3 * min(sum(e[2] == i and e[3] == c for e in self.sent), 20) for c in range(self.C)]
            row += [min(max(a / 200, 0), 8) for a in self.average[i]]
            row += list(self.flags[i]) + [self.arrival_average[i]]
            row += [min(max(100 * (self.risk_mass[i] / self.mass[i] - 0.03), -2), 5)]
            angle = 2 * math.pi * self.ep.hours[0] / 24
            rows.append([*row, math.sin(angle), math.cos(angle)])
        return np.array(rows)

    def state(self):
        average = self.latency_sum / max(self.latency_count, 1e-9)
        return np.array(
            [0.3 * min(len(q), 20) for q in self.queues]
            + [self.risk_mass.sum() / self.mass.sum() / 0.05]
            + [min(v / 200, 8) for v in self.work]
            + [min(average / 200, 8)]
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"difficulty": "hard", "scenario": "outage"},
        {"buffer_ms": (60, 90, 150), "ack_delay_steps": 4},
        {"arrival_rates": (0.9, 0.7, 0.8), "outage": ("internal", 20, 40)},
    ],
    ids=["medium", "hard with outage", "small buffers, stale acknowledgements", "overload with outage"],
)
def test_agrees_with_a_plain_loop_over_the_rules(options):
    env = TransactionRoutingEnv(episode_steps=150, **options)
    observation = env.reset(seed=7)
    reference = Reference(env)
    for actions in random_actions(150, 3):
        np.testing.assert_allclose(observation, reference.observe(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(env.state(), reference.state(), rtol=1e-5, atol=1e-5)
        expected = reference.step(actions, options.get("ack_delay_steps", 0))
        observation, rewards, dones, info = env.step(actions)
        np.testing.assert_allclose(rewards, expected, rtol=1e-5)
        np.testing.assert_array_equal(env.workload_ms, reference.work)
    np.testing.assert_allclose(observation, reference.observe(), rtol=1e-5, atol=1e-5)
    assert dones.all() and info["truncated"]


# ------------------------------------------------------------------ a scripted episode, by hand


def scripted(arrivals, amounts, urgent, **options):
    """Constant capacity, empty channels, every service factor 1 and the given transactions."""
    arrivals = np.array(arrivals)
    traffic = {"arrivals": arrivals, "amounts": amounts, "urgent": urgent, "service": np.ones(len(amounts))}
    fixed = dict(episode_steps=len(arrivals), capacity_sd=(0, 0, 0), initial_workload_ms=(0, 0, 0), day_amplitude=0.0)
    return TransactionRoutingEnv(traffic_source=lambda rng: traffic, **(fixed | options))


def test_a_scripted_episode_by_hand():
    # Step 0: router 0 gets two transactions, router 1 one. All go to the internal channel: 1000/70 ms of work each.
    env = scripted([[2, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], [87.0, 870.0, 174.0], [1, 0, 0])
    first = env.reset(seed=3)
    assert first[0, :6] == pytest.approx([0.6, 1, 0, 0.5, 1, 0])
    assert first[1, :6] == pytest.approx([0.3, 1, math.log10(2), 2**0.3 / 2, 0, 0], abs=1e-6)
    assert first[2, :6] == pytest.approx([0, 0, 0, 0, 0, 0])
    assert first[:, 15] == pytest.approx([0.95 * 0.58 + 0.05 * 2, 0.95 * 0.42 + 0.05 * 1, 0.95 * 0.54], abs=1e-6)
    assert first[:, 16] == pytest.approx(-0.2, abs=1e-6)

    second, rewards, _, info = env.step(np.array([0, 0, 0]))
    work = 1000 / 70
    assert info["details"]["latency_ms"][:2] == pytest.approx([20, 20 + work], abs=1e-5)
    assert math.isnan(info["details"]["latency_ms"][2])
    assert env.workload_ms == pytest.approx([2 * work - 10, 0, 0], abs=1e-5)
    own = np.array([1.6 * 0.2 + 0.3 * 0.1 + 0.1, 0.8 * (20 + work) / 100 + 0.3 * 0.1, 0])  # one is left: 0.1
    assert info["details"]["risk"] < 0.03
    assert rewards == pytest.approx(-(0.5 * own + 0.5 * own.mean()), abs=1e-5)
    assert second[:, 6] == pytest.approx([0.3, 0.3, 0], abs=1e-6)
    assert second[0, :6] == pytest.approx([0.3, 1, 1, 10**0.3 / 2, 0, 10 / 200], abs=1e-6)  # it has waited one step

    third, *_ = env.step(np.array([1, 0, 0]))  # 20 ms have passed: router 0 learns its latency of 20 ms, no wait
    assert third[0, 6:12] == pytest.approx([0, 0.3, 0, 0, 0, 0], abs=1e-6)
    assert third[1, 6:12] == pytest.approx([0.3, 0, 0, 0, 0, 0], abs=1e-6)  # 34.3 ms: not yet
    *_, info = env.step(np.array([0, 0, 0]))
    final, *_, info = env.step(np.array([0, 0, 0]))
    assert final[1, 6:12] == pytest.approx([0, 0, 0, 0.3 * work / 200, 0, 0], abs=1e-6)
    metrics = info["episode_metrics"]
    assert metrics["transactions"] == 3 and metrics["leftovers"] == 0
    assert metrics["latency_ms"] == pytest.approx((20 + 20 + work + 10 + 80) / 3, abs=1e-5)
    assert metrics["latency_p50_ms"] == pytest.approx(20 + work, abs=1e-5)
    assert metrics["cost_per_transaction"] == pytest.approx(0.7 / 3)
    assert metrics["share_internal"] == pytest.approx(2 / 3) and metrics["share_under_target"] == 1
    assert metrics["utilisation_internal"] == pytest.approx(2 * work / 40, abs=1e-5)


def test_portfolio_risk_by_hand():
    env = scripted([[1, 0, 0], [0, 0, 0]], [870.0], [0], initial_workload_ms=(0, 0, 0))
    env.reset(seed=0)
    env.step(np.array([2, 0, 0]))
    phi = math.exp(-0.01)
    stationary = (np.array([58, 42, 54]) / 100 * np.array([100, 400, 150]) * math.exp(0.405) / (1 - phi)).sum()
    expected = (phi * 0.028 * stationary + 870 * 0.01 * 10**0.3) / (phi * stationary + 870)
    assert env.risk == pytest.approx(expected, rel=1e-12)
    env.step(np.array([0, 0, 0]))
    assert env.risk == pytest.approx(expected, rel=1e-12)  # both sides decay: without a dispatch R stays


def test_risk_grows_with_the_wait_and_with_the_age():
    # Three transactions in one queue: the third is dispatched in step 2, so that it is 20 ms old.
    env = scripted([[3, 0, 0], [0, 0, 0], [0, 0, 0]], [87.0] * 3, [0] * 3, fees=(0, 0, 0), initial_risk=0.0)
    env.reset(seed=0)
    work, phi, mass, risk_mass = 1000 / 70, math.exp(-0.01), 0.0, 0.0
    for t, wait in enumerate([0, work - 10, 2 * (work - 10)]):
        env.step(np.array([0, 0, 0]))
        mass, risk_mass = phi * mass + 87, phi * risk_mass + 87 * 0.03 * (1 + 1.2 * (10 * t + wait) / 1000)
    stationary = (np.array([0.58, 0.42, 0.54]) * [100, 400, 150] * math.exp(0.405) / (1 - phi)).sum()
    assert env.risk == pytest.approx(risk_mass / (mass + phi**3 * stationary), rel=1e-6)


def test_a_full_channel_refuses_and_the_transaction_stays_at_the_head():
    env = scripted([[1, 1, 0], [0, 0, 0]], [100.0, 200.0], [0, 0], buffer_ms=(0, 0, 0))
    env.reset(seed=0)
    observation, rewards, _, info = env.step(np.array([0, 0, 0]))  # router 0 comes first and fills the channel
    assert info["details"]["dispatched"].tolist() == [True, False, False]
    assert observation[1, 0] == pytest.approx(0.3) and observation[1, 2] == pytest.approx(math.log10(200 / 87))
    assert observation[1, 12] == 1 and observation[0, 12] == 0  # only the refused router knows
    own = np.array([0.8 * 0.2 + 0.03, 0.5 + 0.1, 0])
    assert rewards == pytest.approx(-(0.5 * own + 0.5 * own.mean()), abs=1e-5)
    observation, *_, info = env.step(np.array([0, 1, 0]))
    assert info["details"]["dispatched"].tolist() == [False, True, False]
    assert observation[1, 12] == pytest.approx(0.9)
    assert info["episode_metrics"]["refusals"] == 1 and info["episode_metrics"]["leftovers"] == 0


def test_routers_are_served_in_rotating_order():
    env = scripted([[1, 1, 1]] * 6, [100.0] * 18, [0] * 18)
    env.reset(seed=0)
    for t in range(6):
        _, _, _, info = env.step(np.array([0, 0, 0]))
        order = np.argsort(info["details"]["latency_ms"])
        assert order.tolist() == [t % 3, (t + 1) % 3, (t + 2) % 3]


def test_every_leftover_costs():
    arrivals = [[1, 3, 0]]  # one step: one dispatched each, two of router 1 are left
    rewards = {}
    for cost in (0.0, 2.3):
        env = scripted(arrivals, [100.0] * 4, [0] * 4, leftover_cost=cost)
        env.reset(seed=0)
        _, reward, _, info = env.step(np.array([0, 1, 0]))
        rewards[cost] = reward
        assert info["episode_metrics"]["leftovers"] == 2
    assert rewards[2.3].sum() - rewards[0.0].sum() == pytest.approx(-4.6, abs=1e-5)
    assert (rewards[2.3] - rewards[0.0])[1] == pytest.approx(-(0.5 * 4.6 + 0.5 * 4.6 / 3), abs=1e-5)


def test_an_action_without_a_transaction_is_ignored():
    env = scripted([[0, 0, 0], [1, 0, 0]], [100.0], [0])
    env.reset(seed=0)
    _, rewards, _, info = env.step(np.array([2, 1, 0]))
    assert not info["details"]["dispatched"].any() and (rewards == 0).all() and (env.workload_ms == 0).all()


# ------------------------------------------------------------------ laws that hold in every episode


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_transactions_are_conserved(difficulty):
    env = TransactionRoutingEnv(8, difficulty, scenario="outage", buffer_ms=(200, 300, 400), episode_steps=300)
    _, _, infos = play(env, random_actions(300, 8, 3), seed=50)
    arrived = env.episodes.counts.sum(axis=(0, 2))
    metrics = infos[-1]["episode_metrics"]
    assert (metrics["refusals"] > 0).any()
    np.testing.assert_array_equal(arrived, metrics["transactions"] + metrics["leftovers"])
    np.testing.assert_array_equal(metrics["transactions"], detail(infos, "dispatched").sum(axis=(0, 2)))
    assert len(env.episodes.transactions) - 1 == arrived.sum()


def test_work_is_conserved_exactly():
    env = TransactionRoutingEnv(4, episode_steps=300)
    _, _, infos = play(env, random_actions(300, 4, 3))
    work_in = np.zeros((4, 3))
    rows = env.episodes.first.copy()
    for info in infos:
        for e, i in zip(*np.nonzero(info["details"]["dispatched"]), strict=True):
            c = info["details"]["action"][e, i]
            work_in[e, c] += np.rint(env.constants.work_ms[c] * env.episodes.transactions[rows[e, i], SERVICE] * 2**20)
            rows[e, i] += 1
    possible = env.episodes.served.sum(axis=0)
    metrics = infos[-1]["episode_metrics"]
    done = possible * np.stack([metrics[f"utilisation_{c}"] for c in env.constants.channel_names], axis=1)
    np.testing.assert_allclose(env.episodes.initial_workload + work_in / 2**20 - env.workload_ms, done, rtol=1e-12)


def test_in_flight_is_what_was_sent_and_not_yet_acknowledged():
    env = TransactionRoutingEnv(4, ack_delay_steps=3)
    env.reset(seed=1)
    due = []
    for t, actions in enumerate(random_actions(200, 4, 3)):
        _, _, _, info = env.step(actions)
        d = info["details"]
        for e, i in zip(*np.nonzero(d["dispatched"]), strict=True):
            latency = d["latency_ms"][e, i] - age_of(env, e, i, t, d)
            due.append((t + 3 + math.ceil(round(latency / 10, 9)), e, i, d["action"][e, i]))
        expected = np.zeros((4, 3, 3))
        for when, e, i, c in due:
            expected[e, i, c] += when > t + 1
        np.testing.assert_array_equal(env.in_flight, expected)


def age_of(env, e, i, t, details):
    """Age at dispatch of what router i sent in step t, from the arrival column of its row."""
    row = env._next_row[e, i] - 1
    assert env.episodes.transactions[row, AMOUNT] == details["amount"][e, i]
    return 10.0 * (t - env.episodes.transactions[row, ARRIVAL])


def test_mean_wait_agrees_with_pollaczek_and_khinchine():
    # One Poisson source, one channel of constant capacity: W = lambda E[S^2] / (2 (1 - rho)), S of mean 10 ms, cv 1/2.
    one = dict(
        arrival_rates=(0.06,),
        burst_factors=(1.0,),
        amount_medians=(100.0,),
        urgent_probabilities=(0.0,),
        channel_names=("only",),
        base_latency_ms=(20.0,),
        risk_rates=(0.01,),
        fees=(0.0,),
        channel_rates=(100.0,),
        buffer_ms=(1e5,),
        initial_workload_ms=(0.0,),
        capacity_sd=(0.0,),
        day_amplitude=0.0,
    )
    env = TransactionRoutingEnv(256, step_ms=1.0, episode_steps=3000, **one)
    env.reset(seed=0)
    for _ in range(3000):
        *_, info = env.step(np.zeros((256, 1), dtype=int))
    metrics = info["episode_metrics"]
    mean_wait = np.average(metrics["latency_ms"], weights=metrics["transactions"]) - 20.0
    assert mean_wait == pytest.approx(0.06 * 100 * 1.25 / (2 * 0.4), rel=0.05)
    assert metrics["utilisation_only"].mean() == pytest.approx(0.6, abs=0.01)


def test_arrivals_amounts_and_capacity_follow_their_laws():
    env = TransactionRoutingEnv(256)
    env.reset(seed=123)
    counts, table = env.episodes.counts[:-1], env.episodes.transactions[:-1]
    np.testing.assert_allclose(counts.mean(axis=(0, 1)), [0.58, 0.42, 0.54], rtol=0.02)
    router = np.repeat(np.tile(np.arange(3), 256), counts.sum(axis=0).ravel())
    for i, median in enumerate([100, 400, 150]):
        assert np.median(table[router == i, AMOUNT]) == pytest.approx(median, rel=0.02)
    assert [table[router == i, URGENT].mean() for i in range(3)] == pytest.approx([0.3, 0.1, 0.2], abs=0.01)
    assert table[:, SERVICE].mean() == pytest.approx(1, abs=0.01)
    assert table[:, SERVICE].std() == pytest.approx(0.5, abs=0.01)
    assert set(np.unique(table[:, WEIGHT])) == {0.8, 1.6}
    capacity = env.episodes.capacity
    np.testing.assert_allclose(capacity.std(axis=(0, 1)), [0.05, 0.10, 0.15], rtol=0.05)
    x = capacity[..., 0] - 1
    assert (x[100:] * x[:-100]).mean() / (x * x).mean() == pytest.approx(math.exp(-1), abs=0.06)


def test_bursts_fill_a_quarter_of_the_time_and_last_eighty_steps():
    env = TransactionRoutingEnv(
        32,
        burst_factors=(4.0, 4.0, 4.0),
        arrival_rates=(2.0, 2.0, 2.0),
        day_amplitude=0.0,
        episode_steps=2000,
        burst_share=0.25,
    )
    env.reset(seed=0)
    busy = env.episodes.counts[:-1] > 0  # with this factor nothing arrives outside a burst, and hardly a step is empty
    assert busy.mean() == pytest.approx(0.25, abs=0.03)
    ends = (busy[:-1] & ~busy[1:]).sum()
    assert busy.sum() / ends == pytest.approx(80, rel=0.12)


@pytest.mark.parametrize(
    "scenario, difficulty, share, lengths", [("outage", "medium", 1.0, (60, 120)), (None, "hard", 0.3, (40, 80))]
)
def test_outages(scenario, difficulty, share, lengths):
    env = TransactionRoutingEnv(256, difficulty, scenario)
    env.reset(seed=0)
    down = env.episodes.capacity == 0  # (T, E, C)
    assert down.any(axis=(0, 2)).mean() == pytest.approx(share, abs=0.08)
    assert (down.any(axis=0).sum(axis=1) <= 1).all() and down.any(axis=0).any(axis=0).all()
    length = down.sum(axis=(0, 2))
    assert length[length > 0].min() >= lengths[0] and length.max() <= lengths[1]


# ------------------------------------------------------------------ randomness and stacking


def test_same_seed_same_episode():
    env, actions = TransactionRoutingEnv(2, "hard"), random_actions(100, 2, 3)
    one, two = play(env, actions, seed=5), play(TransactionRoutingEnv(2, "hard"), actions, seed=5)
    again, other = play(env, actions, seed=5), play(env, actions, seed=6)
    for a, b in ((one, two), (one, again)):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_stacked_copies_equal_single_ones_bit_for_bit(difficulty):
    actions, options = random_actions(200, 5, 3), dict(difficulty=difficulty, episode_steps=200)
    stacked = play(TransactionRoutingEnv(5, **options), actions, seed=20)
    for e in range(5):
        single = play(TransactionRoutingEnv(**options), actions[:, e], seed=20 + e)
        np.testing.assert_array_equal(stacked[0][:, e], single[0])
        np.testing.assert_array_equal(stacked[1][:, e], single[1])
        for name, value in single[2][-1]["episode_metrics"].items():
            assert stacked[2][-1]["episode_metrics"][name][e] == value, name
        for name in single[2][0]["details"]:
            np.testing.assert_array_equal(detail(stacked[2], name)[:, e], detail(single[2], name))


def test_seeds_may_be_listed_and_unseeded_episodes_differ():
    env = TransactionRoutingEnv(2, seed=1)
    np.testing.assert_array_equal(env.reset(seed=[8, 3])[1], TransactionRoutingEnv().reset(seed=3))
    first, second = env.reset(), env.reset()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, TransactionRoutingEnv(2, seed=1).reset())


def test_traffic_does_not_depend_on_what_the_routers_do():
    env = TransactionRoutingEnv(4, episode_steps=100)
    play(env, random_actions(100, 4, 3, seed=1), seed=0)
    before = env.episodes
    play(env, random_actions(100, 4, 3, seed=2), seed=0)
    for name in ("counts", "transactions", "capacity", "hours"):
        np.testing.assert_array_equal(getattr(before, name), getattr(env.episodes, name))


def test_returned_arrays_are_not_overwritten_later():
    env = TransactionRoutingEnv(2)
    observation = env.reset(seed=0)
    kept = observation.copy()
    observation_2, _, _, info = env.step(np.zeros((2, 3), int))
    kept_2, details = observation_2.copy(), {name: value.copy() for name, value in info["details"].items()}
    for _ in range(5):
        env.step(np.ones((2, 3), int))
    np.testing.assert_array_equal(observation, kept)
    np.testing.assert_array_equal(observation_2, kept_2)
    for name, value in details.items():
        np.testing.assert_array_equal(info["details"][name], value)


# ------------------------------------------------------------------ protocol, options and bad inputs


def test_shapes_types_and_the_end():
    for num_envs, lead in ((None, ()), (1, (1,)), (4, (4,))):
        env = TransactionRoutingEnv(num_envs, episode_steps=3)
        assert (env.num_agents, env.observation_space_size, env.action_space_size, env.state_size) == (3, 19, 3, 8)
        assert env.discrete_actions and env.num_envs == num_envs
        observation = env.reset(seed=0)
        for t in range(3):
            observation, rewards, dones, info = env.step(np.zeros((*lead, 3), dtype=np.int32))
            assert observation.shape == (*lead, 3, 19) and observation.dtype == np.float32
            assert rewards.shape == (*lead, 3) and rewards.dtype == np.float32
            assert dones.shape == (*lead, 3) and dones.dtype == bool and dones.all() == (t == 2)
            assert np.shape(info["truncated"]) == lead and np.all(info["truncated"]) == (t == 2)
            assert ("episode_metrics" in info) == (t == 2)
            assert env.state().shape == (*lead, 8) and env.state().dtype == np.float32
        assert all(np.shape(value) == lead for value in info["episode_metrics"].values())
        with pytest.raises(RuntimeError, match="over after 3 steps: call reset"):
            env.step(np.zeros((*lead, 3), dtype=int))


def test_difficulty_changes_at_the_next_reset_only():
    env = TransactionRoutingEnv(fees=(0.0, 1.0, 2.0))
    env.reset(seed=0)
    env.set_difficulty("hard")
    assert env.constants.capacity_steps == 100
    env.reset(seed=0)
    assert env.constants.capacity_steps == 60 and env.constants.fees == (0.0, 1.0, 2.0)


def test_what_if_options():
    quiet = TransactionRoutingEnv(arrival_multiplier=np.r_[np.zeros(300), np.full(300, 2.0)])
    quiet.reset(seed=0)
    assert quiet.episodes.counts[:300].sum() == 0 and quiet.episodes.counts[300:].sum() > 600
    out = TransactionRoutingEnv(outage=("blockchain", 100, 50))
    out.reset(seed=0)
    assert (out.episodes.capacity[100:150, 0, 2] == 0).all() and (out.episodes.capacity == 0).sum() == 50


def test_a_users_traffic_is_played_in_order_of_time():
    arrivals = np.array([[1, 0, 1], [0, 2, 0], [1, 0, 0]])
    env = scripted(arrivals, [10.0, 20.0, 30.0, 40.0, 50.0], [0, 0, 0, 0, 0])
    _, _, infos = play(env, np.zeros((3, 3), int))
    np.testing.assert_array_equal(detail(infos, "amount"), [[10, 0, 20], [0, 30, 0], [50, 40, 0]])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(difficulty="medum"), "difficulty must be one of"),
        (dict(scenario="storm"), "scenario must be None or one of"),
        (dict(num_envs=0), "num_envs must be None or a whole number from 1"),
        (dict(fee=(1, 2, 3)), "did you mean 'fees'"),
        (dict(fees=(1, 2)), "fees needs 3 entries"),
        (dict(channel_rates=(70, 0, 41)), "channel_rates must be positive"),
        (dict(capacity_sd=(0.1, float("nan"), 0.1)), "capacity_sd must be finite"),
        (dict(burst_share=1.5), "burst_share must lie in"),
        (dict(burst_share=0.8), "arrival rate outside bursts"),
        (dict(amount_range=(10, 5)), "amount_range must be .smallest, largest"),
        (dict(episode_steps=10.5), "episode_steps must be a whole number"),
        (dict(ack_delay_steps=-1), "ack_delay_steps must be a whole number"),
        (dict(arrival_multiplier=[1.0]), "arrival_multiplier must be"),
        (dict(outage=("nowhere", 0, 10)), "outage: channel must be one of"),
        (dict(risk_limit=0.025), "risk_limit must be above risk_target"),
        (dict(traffic_source=dict, arrival_multiplier=[1.0] * 600), "arrival_multiplier acts on drawn traffic"),
        (dict(outage=(0, 590, 20)), "a window inside the 600 steps"),
    ],
)
def test_impossible_constants_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TransactionRoutingEnv(**options)


@pytest.mark.parametrize(
    "actions, message",
    [
        ([0, 1], "must have shape"),
        ([0, 1, 3], "must be 0..2, found 0..3"),
        ([0, -1, 2], "must be 0..2, found -1..2"),
        ([0.0, 1.0, 2.0], "must be integers"),
        ([[0, 1, 2]], "must have shape"),
    ],
)
def test_impossible_actions_are_refused(actions, message):
    env = TransactionRoutingEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(np.array(actions))


@pytest.mark.parametrize("seed", [-1, 1.5, "one", [1, 2, 3], [1, -2]])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be"):
        TransactionRoutingEnv(2).reset(seed=seed)


@pytest.mark.parametrize(
    "traffic, message",
    [
        ({"arrivals": np.ones((4, 3), int)}, "must return a dict"),
        ({"arrivals": np.ones((5, 3), int), "amounts": np.ones(15), "urgent": np.zeros(15)}, "arrivals must be"),
        ({"arrivals": np.ones((4, 3)), "amounts": np.ones(12), "urgent": np.zeros(12)}, "arrivals must be"),
        ({"arrivals": np.ones((4, 3), int), "amounts": np.ones(11), "urgent": np.zeros(12)}, "amounts needs one entry"),
        ({"arrivals": np.ones((4, 3), int), "amounts": -np.ones(12), "urgent": np.zeros(12)}, "must be positive"),
    ],
)
def test_impossible_traffic_is_refused(traffic, message):
    env = TransactionRoutingEnv(episode_steps=4, traffic_source=lambda rng: traffic)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0)


def test_step_before_reset_is_refused():
    with pytest.raises(RuntimeError, match="has not been reset"):
        TransactionRoutingEnv().step(np.zeros(3, int))
