"""`main.py --deploy`: every agent in a process of its own, from its exported files and its own observations alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import main as main_script
from core.experiment.deployment import deploy as deploy_module
from core.experiment.deployment.deploy import Fleet
from core.experiment.deployment.export import export
from core.experiment.deployment.saved_teams import open_run
from core.experiment.runs import waits
from retail.environment import MultiWarehouseEnv

ROOT = Path(__file__).resolve().parents[1]
ECHO = """
import sys
import threading
from pathlib import Path
with open(Path(__file__).with_name("seen.txt"), "w") as file:
    for line in sys.stdin:
        print(line.strip(), file=file, flush=True)
        print(0.5, flush=True)
"""


@pytest.fixture(scope="module")
def warehouses(runs, tmp_path_factory):
    """A run, and the folders of its exported agents."""
    run = open_run(runs["retail"])
    return run, export(run, tmp_path_factory.mktemp("retail") / "agents")


@pytest.mark.parametrize("problem", ["retail", "banking"])
def test_agents_in_processes_of_their_own_reproduce_the_episodes_and_a_death_has_its_price(problem, runs, capsys):
    assert main_script.main(["--deploy", str(runs[problem]), "--episodes", "2"]) == 0
    title, together, apart, killed, rule = capsys.readouterr().out.splitlines()
    agents, name = {"retail": (5, "warehouse 1"), "banking": (3, "router 1")}[problem]
    assert f"{agents} agents, mean of 2 unseen episodes" in title and "one process" in together
    cost = together.split()[-1]
    assert f"{agents} processes" in apart and f" {cost}  the same" in apart
    assert killed.strip().startswith(f"{name} killed after") and killed.split()[-1][0] in "+-"
    assert rule.startswith("The rule acted ")


def test_another_cost_is_exit_code_1(runs, capsys, monkeypatch):
    honest = Fleet._action
    monkeypatch.setattr(Fleet, "_action", lambda self, *rest: 0.99 * honest(self, *rest))
    assert main_script.main(["--deploy", str(runs["retail"]), "--episodes", "1"]) == 1
    assert "NOT the same: actions differ by" in capsys.readouterr().out


def test_a_process_is_sent_its_own_observations_alone(warehouses, tmp_path):
    run, _ = warehouses
    folders = [tmp_path / str(i) for i in range(5)]
    for folder in folders:
        folder.mkdir()
        (folder / "policy.py").write_text(ECHO)
    env, shown = MultiWarehouseEnv(), []
    observations = env.reset(3)
    with Fleet(run, folders) as fleet:
        for _ in range(5):
            shown.append(observations)
            observations = env.step(fleet(observations))[0]
    for i, folder in enumerate(folders):
        received = np.loadtxt(folder / "seen.txt", dtype=np.float32)
        assert np.array_equal(received, np.stack(shown)[:, i]), "every bit of it, and nothing else"


def test_the_others_go_on_and_the_rule_acts_for_the_dead(warehouses):
    run, folders = warehouses
    env = MultiWarehouseEnv()
    observations = env.reset(3)
    with Fleet(run, folders, killed=(2, 4)) as fleet:
        for step in range(8):
            actions, inputs = fleet(observations), env.named_inputs()
            for i, agent in enumerate(run.agents):
                if i == 2 and step >= 4:
                    assert actions[i] == pytest.approx(run.units.fallback(inputs)[i], abs=1e-6)
                else:
                    assert actions[i] == pytest.approx(agent.select_action(observations[i]), abs=1e-6)
            observations = env.step(actions)[0]
        assert fleet.by_rule.tolist() == [0, 0, 4, 0, 0]
        assert [process.poll() is None for process in fleet.processes] == [True, True, False, True, True]


def test_no_process_outlives_the_fleet(warehouses):
    run, folders = warehouses
    with Fleet(run, folders) as fleet:
        processes = fleet.processes
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(RuntimeError, match="on the way"), Fleet(run, folders) as fleet:
        processes = fleet.processes
        raise RuntimeError("on the way")
    assert all(process.poll() is not None for process in processes)


def test_agents_end_when_the_process_that_asks_them_is_killed(warehouses, runs):
    _, folders = warehouses
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from core.experiment.deployment.deploy import Fleet\n"
        "with Fleet(None, [Path(f) for f in sys.argv[2:]]) as fleet:\n"
        "    print(*[p.pid for p in fleet.processes], flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(ROOT), *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        agents = list(map(int, process.stdout.readline().split()))
        assert len(agents) == 5
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(alive(agent) for agent in agents) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [agent for agent in agents if alive(agent)] == []


def alive(process: int) -> bool:
    """It is there, and not a corpse that nobody has collected."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_run_that_cannot_be_deployed_is_refused_in_one_line(tmp_path, capsys):
    assert main_script.main(["--deploy", str(tmp_path / "none")]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert deploy_module.EPISODES >= 1


def test_an_agent_that_is_frozen_is_mentioned_and_waited_for(warehouses, monkeypatch, capsys):
    monkeypatch.setattr(waits, "PATIENCE", 0.05)
    monkeypatch.setattr(waits, "_watch", None)  # which would look once a second
    run, folders = warehouses
    observations = MultiWarehouseEnv().reset(3)
    with Fleet(run, folders) as fleet:
        expected = fleet(observations)
        frozen = fleet.processes[2]
        os.kill(frozen.pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (frozen.pid, signal.SIGCONT)).start()
        assert np.array_equal(fleet(observations), expected)
    assert f"warning: the process of {run.names[2]}: no answer for 0 s; it may be frozen" in capsys.readouterr().err
