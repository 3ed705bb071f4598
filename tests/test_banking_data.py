"""A payments engineer's own log: what a file may look like, what is fitted on which days, and what is refused."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from banking import data
from banking.baselines import play
from banking.channels import fit_work, waits
from banking.constants import RoutingConstants
from banking.data import data_report, full_report, warning, write_example
from banking.records import load_log
from banking.replay import (
    AsLogged,
    RecordedRouting,
    latencies,
    recorded_baselines,
    recorded_env,
)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "banking/example_transactions.csv"
START = datetime(2024, 3, 4)
HEADER = "timestamp,router,amount"
CHANNELS = HEADER + ",channel,settled_at"


def write(path: Path, lines, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def stamp(seconds: float) -> str:
    return (START + timedelta(seconds=float(seconds))).isoformat(timespec="milliseconds")


def traffic(days: int = 4, hourly: float = 60.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in seconds, routers 0 and 1, amounts: Poisson traffic, busier at noon."""
    rng = np.random.default_rng(seed)
    rates = hourly * (1 + 0.5 * np.sin(2 * np.pi * (np.arange(24 * days) - 6) / 24))
    seconds = np.concatenate([3600 * h + rng.uniform(0, 3600, n) for h, n in enumerate(rng.poisson(rates))])
    seconds = np.round(np.sort(seconds), 3)
    return seconds, rng.integers(0, 2, len(seconds)), np.round(np.exp(rng.normal(5, 1, len(seconds))), 2)


def log_file(folder: Path, **options) -> Path:
    seconds, router, amounts = traffic(**options)
    rows = zip(seconds, router, amounts, strict=True)
    return write(folder / "log.csv", [f"{stamp(t)},{'ab'[r]},{x}" for t, r, x in rows])


def queue_file(folder: Path, base=(10.0, 100.0), work=(40.0, 60.0), **options) -> Path:
    """A log of two channels that are what the model takes channels for."""
    seconds, router, amounts = traffic(**options)
    rng = np.random.default_rng(1)
    channel, latency = rng.integers(0, 2, len(seconds)), np.zeros(len(seconds))
    for c in (0, 1):
        mine = channel == c
        latency[mine] = base[c] + waits(work[c] * rng.gamma(4, 0.25, mine.sum()), np.diff(seconds[mine]))
    rows = zip(seconds, router, amounts, channel, latency, strict=True)
    lines = [f"{stamp(t)},{'ab'[r]},{x},{('fast', 'slow')[c]},{stamp(t + late)}" for t, r, x, c, late in rows]
    return write(folder / "log.csv", lines, CHANNELS)


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_file_is_what_its_script_writes(tmp_path):
    write_example(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == EXAMPLE.read_bytes()
    assert EXAMPLE.stat().st_size < 300_000


def test_the_report_of_the_example_tells_rows_duplicates_split_channels_and_the_check(capsys):
    assert data.main([str(EXAMPLE)]) == 0
    report = capsys.readouterr().out
    for words in (
        "3,921 rows",
        "3,918 transactions of 3 routers",
        "3 repeated lines dropped (line 702 to 704)",
        "2 rows older",
        "training: 2024-03-04 to 2024-03-10",
        "test: 2024-03-11 to 2024-03-13",
        "load 1: 25",
        "1 simulated ms is",
        "blockchain",
        "simulated against logged",
        "they differ by at most",
    ):
        assert words in report, words


# --- from rows to traffic ---------------------------------------------------------------------------------------------


def test_rows_in_any_order_become_transactions_in_order_of_time(tmp_path):
    seconds, router, amounts = traffic()
    path = log_file(tmp_path)
    lines = path.read_text().splitlines()
    log = load_log(write(tmp_path / "log.csv", reversed(lines[1:])))
    np.testing.assert_allclose(log.seconds, seconds, atol=1e-6)
    np.testing.assert_array_equal(log.router, router)
    np.testing.assert_array_equal(log.amounts, amounts)
    assert "sorted by time" in data_report(log) and "no column urgent" in data_report(log)


def test_days_are_split_with_the_newest_as_the_test_and_training_alone_decides_the_constants(tmp_path):
    log = load_log(log_file(tmp_path))
    assert log.seconds[log.training - 1] < 3 * 86_400 <= log.seconds[log.training]
    lines = (tmp_path / "log.csv").read_text().splitlines()[1:]
    lines[log.training :] = [line.rsplit(",", 1)[0] + ",7.5" for line in lines[log.training :]]
    again = load_log(write(tmp_path / "log.csv", lines))
    assert again.constants == log.constants and again.speed == log.speed
    assert (again.amounts[again.training :] == 7.5).all(), "the changed file was read anew"


def test_the_clock_runs_slower_where_a_step_would_be_long_against_a_fast_channel(tmp_path):
    log = load_log(queue_file(tmp_path, base=(10.0, 100.0)))
    step = log.speed * RoutingConstants().step_ms / 1000  # seconds of the log
    assert step == pytest.approx(5.0, rel=0.1), "half the base latency of the fastest channel"
    assert log.busy / 3600 * step == pytest.approx(sum(log.constants["arrival_rates"]))


def test_the_busy_hour_is_load_one(tmp_path):
    log, k = load_log(log_file(tmp_path)), RoutingConstants()
    counts = np.histogram(log.seconds[: log.training], 3600 * np.arange(73))[0]
    assert log.busy == pytest.approx(np.percentile(counts, 90))
    step = log.speed * k.step_ms / 1000  # seconds of the log
    rates = np.array(log.constants["arrival_rates"])
    assert log.busy / 3600 * step == pytest.approx(rates.sum())
    assert rates.max() == pytest.approx(0.58), "a router sends one transaction a step: two routers cannot have 1.54"
    rho = rates.sum() * 100 / sum(log.constants["channel_rates"])
    assert rho == pytest.approx(sum(k.arrival_rates) * 100 / sum(k.channel_rates)), "as loaded as the built-in channels"


def test_three_even_routers_bring_as_many_transactions_a_step_as_the_built_in_ones(tmp_path):
    fields = [line.split(",") for line in log_file(tmp_path).read_text().splitlines()[1:]]
    lines = [f"{when},{'abc'[i % 3]},{amount}" for i, (when, _, amount) in enumerate(fields)]
    log = load_log(write(tmp_path / "log.csv", lines))
    assert sum(log.constants["arrival_rates"]) == pytest.approx(1.54)


def test_repeated_lines_are_dropped_where_chance_cannot_explain_them(tmp_path):
    lines = log_file(tmp_path).read_text().splitlines()[1:]
    log = load_log(write(tmp_path / "log.csv", [*lines[:10], *lines[5:]]))
    assert len(log.seconds) == len(lines) and "5 repeated lines dropped (line 12 to 16)" in data_report(log)
    coarse = [f"{line[:19]},a,9.99" if i % 2 else f"{line[:19]},b,9.99" for i, line in enumerate(lines)]
    log = load_log(write(tmp_path / "log.csv", [*coarse, coarse[-1]]))
    assert len(log.seconds) == len(lines) + 1 and "kept: payments of one second may be alike" in data_report(log)
    assert "whole seconds: spread evenly" in data_report(log)
    assert len(np.unique(log.seconds)) == len(log.seconds)


def test_urgent_transactions_fees_and_hours_reach_the_environment(tmp_path):
    lines = [
        f"{line},{'yes' if i % 4 == 0 else 'no'}"
        for i, line in enumerate(log_file(tmp_path).read_text().splitlines()[1:])
    ]
    log = load_log(write(tmp_path / "log.csv", lines, HEADER + ",urgent"))
    assert log.urgent.mean() == pytest.approx(0.25, abs=0.01)
    assert np.mean(log.constants["urgent_probabilities"]) == pytest.approx(0.25, abs=0.03)
    env = RecordedRouting(log, evaluation=True, num_envs=8)
    observations = env.reset(10_000)
    for e, rows in enumerate(env.window_rows):
        hour = log.seconds[rows].min() / 3600 % 24
        assert env.episodes.hours[e] == pytest.approx(hour)
        assert observations[e, 0, -2] == pytest.approx(np.sin(2 * np.pi * hour / 24), abs=1e-6)


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_a_window_is_a_stretch_of_its_part_of_the_log_step_by_step(tmp_path):
    log = load_log(log_file(tmp_path))
    for evaluation in (False, True):
        env = RecordedRouting(log, evaluation, num_envs=20)
        env.reset(10_000)
        step = log.speed * env.constants.step_ms / 1000
        for e, rows in enumerate(env.window_rows):
            assert (np.sort(rows) == np.arange(rows.min(), rows.max() + 1)).all(), "nothing is left out"
            assert (rows >= log.training).all() if evaluation else (rows < log.training).all()
            start = log.seconds[rows.min()]
            when = ((log.seconds[rows] - start) / step).astype(int)
            counts = np.zeros_like(env.episodes.counts[:, e])
            np.add.at(counts, (when, log.router[rows]), 1)
            np.testing.assert_array_equal(env.episodes.counts[:, e], counts)
    amounts = env.episodes.transactions[:-1, 4]
    inside = np.clip(log.amounts[np.concatenate(env.window_rows)], *env.constants.amount_range)
    np.testing.assert_allclose(amounts, inside, err_msg="amounts are with the router and the step they belong to")


def test_a_stacked_copy_is_the_single_environment_of_its_seed(tmp_path):
    log = load_log(log_file(tmp_path))
    stacked, single = RecordedRouting(log, num_envs=3), RecordedRouting(log)
    np.testing.assert_array_equal(stacked.reset(7)[2], single.reset(9))
    for t in range(30):
        actions = np.array([t % 3, (t + 1) % 3])
        many, one = stacked.step(np.tile(actions, (3, 1))), single.step(actions)
        np.testing.assert_array_equal(many[0][2], one[0])
        np.testing.assert_array_equal(many[1][2], one[1])


# --- channels ---------------------------------------------------------------------------------------------------------


def test_lindleys_recursion_in_closed_form_is_the_recursion():
    rng = np.random.default_rng(0)
    work, gaps = rng.exponential(1.0, 200), rng.exponential(1.2, 199)
    expected = [0.0]
    for k in range(199):
        expected.append(max(0.0, expected[-1] + work[k] - gaps[k]))
    np.testing.assert_allclose(waits(work, gaps), expected, atol=1e-9)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_the_work_of_a_transaction_is_found_again_whatever_the_load(load):
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.exponential(100.0, 4000))
    wait = waits(100.0 * load * rng.gamma(4, 0.25, 4000), np.diff(seconds)).mean()
    assert fit_work(seconds, wait) == pytest.approx(100.0 * load, rel=0.06)


def test_channels_are_fitted_from_settlements_and_ordered_by_speed(tmp_path):
    log = load_log(queue_file(tmp_path, hourly=80.0, days=6))
    constants = log.constants
    assert constants["channel_names"] == ("fast", "slow")
    base = np.array(constants["base_latency_ms"]) * log.speed / 1000
    work = log.speed / np.array(constants["channel_rates"])
    np.testing.assert_allclose(base, [10.0, 100.0], rtol=0.15)
    np.testing.assert_allclose(work, [40.0, 60.0], rtol=0.12)
    assert constants["risk_rates"] == (0.03, 0.01), "assumed: the fastest is the riskiest"
    assert RecordedRouting(log).action_space_size == 2


def test_the_simulation_settles_as_the_log_did_when_channels_are_queues(tmp_path):
    log = load_log(queue_file(tmp_path, work=(40.0, 50.0), hourly=80.0, days=6))
    logged, simulated = latencies(log, episodes=40, seed=0)
    for name in ("fast", "slow"):
        assert simulated[name].mean() == pytest.approx(logged[name].mean(), rel=0.25)
    assert "simulated against logged" in full_report(log.path)


def test_channels_that_are_no_queues_are_found_out(tmp_path):
    """One transaction in thirty is looked at by hand, for three hours: that has nothing to do with load."""
    seconds, router, amounts = traffic()
    when = [t + (10_800 if i % 30 == 0 else 20 if i % 2 else 1) for i, t in enumerate(seconds)]
    rows = zip(seconds, router, amounts, when, strict=True)
    lines = [f"{stamp(t)},{'ab'[r]},{x},{('fast', 'slow')[i % 2]},{stamp(w)}" for i, (t, r, x, w) in enumerate(rows)]
    path = write(tmp_path / "log.csv", lines, CHANNELS)
    report = full_report(path)
    assert "no queue was ever seen at slow" in report and "do NOT describe your channels" in report
    assert "latency and rate fitted; fee assumed, risk assumed" in report, "who gave no fees is told"
    assert "do not rely on these results" in warning(path), "beside the results, too"
    assert warning(EXAMPLE) == ""


def test_what_cannot_be_used_is_named(tmp_path):
    lines = [f"{stamp(t)},{'ab'[r]},{x},swift,0.2" for t, r, x in zip(*traffic(), strict=True)]
    report = full_report(write(tmp_path / "log.csv", lines, HEADER + ",channel,fee"))
    assert re.search("not used: .*channel.*fee", report) and "fee assumed, risk assumed" in report


def test_the_policy_as_logged_sends_every_transaction_where_the_log_did(tmp_path):
    log = load_log(queue_file(tmp_path))
    env, policy = RecordedRouting(log, evaluation=True, num_envs=4), AsLogged()
    play(env, policy, [1, 2, 3, 4])
    env.reset([1, 2, 3, 4])
    policy.begin_episode(env)
    sent, over = [[] for _ in range(4)], False
    while not over:
        actions = policy(None)
        _, _, dones, info = env.step(actions)
        for e in range(4):
            for i in np.flatnonzero(info["details"]["dispatched"][e]):
                sent[e].append((i, actions[e, i], info["details"]["amount"][e, i]))
        over = dones.all()
    for e, rows in enumerate(env.window_rows):
        for i in (0, 1):
            own = [(c, a) for j, c, a in sent[e] if j == i]
            logged = [(log.channel[r], log.amounts[r]) for r in rows if log.router[r] == i]
            assert own and len(logged) - len(own) < 20
            assert [c for c, _ in own] == [c for c, _ in logged[: len(own)]]
            np.testing.assert_allclose([a for _, a in own], [a for _, a in logged[: len(own)]])


def test_transactions_that_never_settled_still_arrive(tmp_path):
    lines = queue_file(tmp_path).read_text().splitlines()[1:]
    lines[::10] = [line.rsplit(",", 1)[0] + "," for line in lines[::10]]
    log = load_log(write(tmp_path / "log.csv", lines, CHANNELS))
    assert len(log.seconds) == len(lines) and "not settled" in data_report(log)


def test_a_channel_without_settlements_is_not_used_and_the_report_says_so(tmp_path):
    lines = [f"{line},sepa" for line in log_file(tmp_path).read_text().splitlines()[1:]]
    log = load_log(write(tmp_path / "log.csv", lines, HEADER + ",channel"))
    assert log.channel is None and "not used: channel" in data_report(log)


# --- what the engineer knows ------------------------------------------------------------------------------------------


def test_known_constants_are_in_time_of_the_log(tmp_path):
    path = queue_file(tmp_path)
    known = {"latency_target_ms": 60_000, "risk_rates": {"slow": 0.001, "fast": 0.02}, "fee_weight": 0.5}
    (tmp_path / "log.constants.json").write_text(json.dumps(known))
    log = load_log(path)
    k = RecordedRouting(log).constants
    assert k.latency_target_ms * log.speed == pytest.approx(60_000)
    assert k.risk_rates == (0.02, 0.001) and k.fee_weight == 0.5
    assert "the latency target is 60 s" in data_report(log) and "known from log.constants.json" in data_report(log)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{a: 1}", "not valid JSON"),
        ("[1]", "a list"),
        ('{"fee": 1}', "did you mean 'fees'?"),
        ('{"arrival_rates": [1, 2]}', "comes from the data"),
        ('{"risk_rates": {"fast": 0.1}}', "give it for fast, slow"),
        ('{"fee_weight": {"fast": 0.1}}', "give one number"),
        ('{"latency_target_ms": "soon"}', "give numbers"),
        ('{"risk_rates": [0.1, 2]}', "[0, 1]"),
        ("[" * 100_000, "not valid JSON"),
        ('{"burst_share": [0.5]}', "burst_share must be one number, found (0.5,)"),
        ('{"burst_factors": [[1], [1]]}', "burst_factors must be several numbers"),
        ('{"risk_limit": "0.1"}', "risk_limit must be one number, found"),
        ('{"fee_weight": true}', "fee_weight must be one number, found True"),
        ('{"fee_weight": 1%s}' % ("0" * 400), "fee_weight must be one number"),
        ('{"latency_target_ms": NaN}', "finite"),
    ],
)
def test_constants_that_make_no_sense_are_refused(tmp_path, content, found):
    path = queue_file(tmp_path)
    (tmp_path / "log.constants.json").write_text(content)
    with pytest.raises(ValueError, match="log.constants.json") as refusal:
        load_log(path)
    assert found in str(refusal.value)


# --- classical rules --------------------------------------------------------------------------------------------------


def test_the_classical_rules_are_tuned_anew_on_the_training_days(tmp_path):
    env = recorded_env(queue_file(tmp_path), evaluation=True, num_envs=30, episode_steps=100)
    rules = recorded_baselines(env, generations=3, candidates=6, episodes=2)
    assert {"as logged", "static split", "size threshold", "local index", "global index"} <= set(rules)
    reward = {name: play(env, rule, 10_000)["team_return"].mean() for name, rule in rules.items()}
    assert reward["local index"] > reward["uniform random"]
    assert rules["local index"].parameters.shape == (2 + 1 + 1 + 4,), "for two channels"
    dear = recorded_env(queue_file(tmp_path), evaluation=True, num_envs=30, episode_steps=100, fee_weight=30.0)
    changed = recorded_baselines(dear, generations=3, candidates=6, episodes=2)
    assert not np.array_equal(changed["local index"].parameters, rules["local index"].parameters), "for its constants"


def test_recorded_traffic_cannot_be_multiplied(tmp_path):
    with pytest.raises(ValueError, match="this is recorded: leave it out"):
        recorded_env(queue_file(tmp_path), arrival_multiplier=[2.0] * 600)


# --- what is refused --------------------------------------------------------------------------------------------------

GOOD = "\n".join([HEADER, *(f"{stamp(t)},{'ab'[r]},{x}" for t, r, x in zip(*traffic(), strict=True))])
SETTLED = [CHANNELS, *(f"{stamp(300 * i)},{'ab'[i % 2]},5,{'xyx'[i % 3]},{stamp(300 * i + 60)}" for i in range(4000))]
SETTLED = "\n".join(SETTLED)


def with_line(number: int, text: str, of: str = GOOD) -> str:
    lines = of.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


REFUSED = {
    "empty file": ("", ["is empty"]),
    "header alone": (HEADER + "\n", ["no row"]),
    "missing column": (GOOD.replace("amount", "price", 1), ["the column amount cannot be found", "'price'"]),
    "misspelt column": (GOOD.replace("router", "routr", 1), ["'router' for 'routr'"]),
    "semicolons": (GOOD.replace(",", ";"), ["separated by ';'"]),
    "not a CSV": (b"\xd0\xcf\x11\xe0" + bytes(100), ["workbook"]),
    "binary": (bytes(range(256)), ["not a CSV"]),
    "short row": (with_line(9, "2024-03-04T00:10:00,a"), ["line 9: 2 fields"]),
    "no time": (with_line(9, "soon,a,5"), ["line 9: timestamp is 'soon', no date"]),
    "no such hour": (with_line(9, "2024-03-04T25:00:00,a,5"), ["line 9: timestamp", "no date"]),
    "seconds of an epoch": (with_line(9, "1709543702,a,5"), ["line 9: timestamp is '1709543702', no date"]),
    "mixed time zones": (with_line(9, "2024-03-04T00:10:00Z,a,5"), ["line 9: mixed time zones: +00:00", "one zone"]),
    "a zone a column": (
        re.sub("(?m)^(20[^,]*),", r"\1Z,", SETTLED),
        ["mixed time zones: timestamp has +00:00, settled_at has no time zone"],
    ),
    "amount in words": (with_line(9, "2024-03-04T00:10:00,a,five"), ["line 9: amount is 'five', no number"]),
    "amount with a sign": (with_line(9, "2024-03-04T00:10:00,a,$5"), ["line 9: amount is '$5', no number"]),
    "negative amount": (with_line(9, "2024-03-04T00:10:00,a,-5"), ["line 9: amount is '-5', negative"]),
    "amount of zero": (with_line(9, "2024-03-04T00:10:00,a,0"), ["line 9: amount is '0'", "above 0"]),
    "no amount": (with_line(9, "2024-03-04T00:10:00,a,"), ["line 9: amount is empty"]),
    "no router": (with_line(9, "2024-03-04T00:10:00,,5"), ["line 9: router is empty"]),
    "urgent in words": (
        GOOD.replace("amount", "urgent", 1)
        .replace("router", "amount,router", 1)
        .replace("amount,router,urgent", "router,amount,urgent")
        .replace(",a,", ",a,5,")
        .replace(",b,", ",b,5,"),
        ["urgent is", "write 0 or 1"],
    ),
    "settled before it was sent": (
        with_line(9, "2024-03-04T01:10:00,a,5,x,2024-03-04T01:09:59", SETTLED),
        ["line 9: settled_at is '2024-03-04T01:09:59', before its timestamp"],
    ),
    "zones that differ between columns": (
        with_line(9, "2024-03-04T01:10:00,a,5,x,2024-03-04T01:11:00+01:00", SETTLED),
        ["line 9: mixed time zones"],
    ),
    "no channel": (with_line(9, "2024-03-04T01:10:00,a,5,,2024-03-04T01:11:00", SETTLED), ["line 9: channel is empty"]),
    "one channel": (SETTLED.replace(",y,", ",x,"), ["only the channel 'x'", "leave the column out"]),
    "a channel hardly used": (
        with_line(9, "2024-03-04T01:10:00,a,5,rare,2024-03-04T01:11:00", SETTLED),
        ["'rare' has 1 settled", "30 are"],
    ),
    "a new channel": (
        with_line(3990, "2024-03-17T21:00:00,a,5,new,2024-03-17T21:01:00", SETTLED),
        ["'new' is on the test days"],
    ),
    "one router": (GOOD.replace(",b,", ",a,"), ["only the router 'a'", "two or more"]),
    "one day": ("\n".join(GOOD.splitlines()[:400]), ["all transactions are of 2024-03-04, too little data"]),
    "too little": ("\n".join([HEADER, *GOOD.splitlines()[1::20]]), ["too little data", "more days: at least 400"]),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_file_that_cannot_be_used_is_refused_with_lines_what_was_found_and_what_to_do(tmp_path, name, capsys):
    content, found = REFUSED[name]
    path = tmp_path / "log.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="log.csv") as refusal:
        load_log(path)
    assert [words for words in found if words not in str(refusal.value)] == [], str(refusal.value)
    assert data.main([str(path)]) == 2 and "log.csv" in capsys.readouterr().err
