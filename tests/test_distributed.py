"""Two processes train as one: the same networks in both, every episode once, and the first alone writes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from games import GuessNumber
from teams import ALGORITHMS, same

from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.training import episode_seeds

TWO_PROCESSES = """
import sys, warnings, weakref
from pathlib import Path
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(root), str(root / "tests")]
warnings.simplefilter("ignore")
import dataclasses
import torch
torch.set_num_threads(1)
from core.experiment.runs import distributed
from games import ConstantReward, GuessNumber, Leaving
from teams import ALGORITHMS, make_team, moved_by_optimizers, random_batch
from core.experiment.runs.checkpoint import load_checkpoint
from core.experiment.training import train
from core.experiment.vector_env import VectorEnv

assert distributed.start("cpu") == "cpu"
rank = distributed.rank()
result = {}

class Folder:
    def __init__(self, path):
        self.checkpoint = path / "checkpoint.pt"

    def write_progress(self, table):
        assert rank == 0, "only the first process writes"

for algorithm in ALGORITHMS:
    def trained(episodes, **options):
        # Every process starts from other weights: the first one's must win.
        team = make_team(algorithm, "continuous", 1, 1, seed=rank)
        env = VectorEnv([GuessNumber] * distributed.share_of(4))
        return team, train(env, team, episodes, **options)
    place = Folder(folder / algorithm)
    team, history = trained(48, run=place)
    trained(16, run=place)
    resume = load_checkpoint(place.checkpoint) if rank == 0 else None
    again, continued = trained(48, resume=distributed.share(resume))
    result[algorithm] = {
        "weights": [p.detach().clone() for p in moved_by_optimizers(team)],
        "resumed": [p.detach().clone() for p in moved_by_optimizers(again)],
        "own randomness": team.random_state(),
        "updates": team.updates,
        "environment steps": team.environment_steps,
        "extra": team.extra_state(),
        "columns": list(history.columns),
        "rows": torch.tensor(history.drop(columns="seconds").to_numpy(float)),
        "resumed rows": torch.tensor(continued.drop(columns="seconds").to_numpy(float)),
    }
for algorithm in ALGORITHMS:
    def rows(batch, start):  # every second row
        tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
        return dataclasses.replace(batch, **{name: value[start::2] for name, value in tensors.items()})
    kind = "continuous" if algorithm == "maddpg" else "discrete"  # losses without random numbers
    alone, one_of_two = (make_team(algorithm, kind, seed=5) for _ in range(2))
    distributed.share_learning(one_of_two)
    for step in range(5):
        whole = make_team(algorithm, kind, seed=5)
        batch = random_batch(whole, 32, seed=step)
        batch = dataclasses.replace(batch, active=torch.ones_like(batch.active))
        alone.update(batch)
        one_of_two.update(rows(batch, rank))
    pairs = zip(moved_by_optimizers(alone), moved_by_optimizers(one_of_two), strict=True)
    result[algorithm]["from one process"] = max(float((a - b).detach().abs().max()) for a, b in pairs)
for name, run in {
    "unequal": lambda: train(VectorEnv([Leaving] * 2), make_team("qmix", state_dim=2, num_agents=3), 8),
    "remainder": lambda: train(VectorEnv([ConstantReward] * 2), make_team("qmix", state_dim=1), 6),
    "share": lambda: distributed.share_of(3),
}.items():
    try:
        run()
    except ValueError as error:
        result[name] = str(error)
group = weakref.ref(torch.distributed.group.WORLD)
distributed.finish()
result["left behind"] = group() is not None
torch.save(result, folder / f"rank{rank}.pt")
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two gloo processes, started as torchrun starts them, found."""
    folder = tmp_path_factory.mktemp("distributed")
    for algorithm in ALGORITHMS:
        (folder / algorithm).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    root = Path(__file__).resolve().parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(root), str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_hold_the_same_networks_and_their_own_experience(two_processes, algorithm):
    first, second = (result[algorithm] for result in two_processes)
    assert same(first["weights"], second["weights"]) and first["updates"] == second["updates"] > 0
    assert not same(first["own randomness"], second["own randomness"])
    steps = int(sum(first["rows"][:, first["columns"].index("length")]))
    assert first["environment steps"] == second["environment steps"] == steps, "exploration decays by the steps of all"
    assert same(first["extra"], second["extra"]), "what a value means is the same everywhere"
    assert torch.equal(first["rows"].nan_to_num(), second["rows"].nan_to_num())
    assert first["rows"][:, 0].tolist() == list(range(48)), "every episode once, in order"
    numbers = [float(GuessNumber().reset(seed=seed)[0, 0]) for seed in episode_seeds(0, 0, 48)]
    assert first["rows"][:, first["columns"].index("number")].tolist() == numbers, "episode k is that of seed k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_with_half_of_a_batch_each_move_as_one_with_the_whole(two_processes, algorithm):
    assert max(found[algorithm]["from one process"] for found in two_processes) < 1e-6


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_distributed_training_resumes_bit_for_bit(two_processes, algorithm):
    for result in two_processes:
        assert same(result[algorithm]["weights"], result[algorithm]["resumed"])
        assert torch.equal(result[algorithm]["rows"].nan_to_num(), result[algorithm]["resumed rows"].nan_to_num())


def test_what_cannot_be_shared_out_is_refused_in_both_processes(two_processes):
    for result in two_processes:
        assert "running episodes differ between processes" in result["unequal"]
        assert "expected a multiple of 4 (2 environments in each of 2 processes), found 6" in result["remainder"]
        assert "num_envs: 3 cannot be shared out over 2 processes" in result["share"]


def test_nothing_keeps_the_group_and_its_threads_alive_once_left(two_processes):
    """Threads of gloo that still run as Python ends abort the process, now and then."""
    assert [result["left behind"] for result in two_processes] == [False, False]


# --- torchrun as a command --------------------------------------------------------------------------------------------

PATIENT = """
import sys
import time
from core.experiment.runs import waits
waits.PATIENCE = 1.0
from banking import train
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture
def two_ranks(tmp_path):
    """A training of two processes under `torchrun` after its first save: torchrun, the second process's number."""
    script = tmp_path / "script.py"
    root = Path(__file__).resolve().parents[1]
    script.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\n{PATIENT}")
    flags = "--episodes 4000 --num-envs 2 --eval-episodes 2 --eval-every 0 --save-every 2 --no-plots --out".split()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(script)]
    process = subprocess.Popen(
        [*launch, *flags, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("*/checkpoint.pt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    ranks = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks |= {int(v[5:]): int(child) for v in variables if v.startswith(b"RANK=")}
    yield process, ranks[1], next(tmp_path.glob("*/checkpoint.pt"))
    process.kill()


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_process_that_dies_ends_the_others_in_a_minute_in_one_line_with_the_checkpoint_whole(two_ranks):
    torchrun, second, checkpoint = two_ranks
    os.kill(second, signal.SIGKILL)
    said = torchrun.communicate(timeout=60)[1]
    own = [line for line in said.splitlines() if "another process has ended" in line]
    assert torchrun.returncode == 1 and len(own) == 1 and "--resume" in own[0]
    assert "[rank0]: Traceback" not in said
    assert len(load_checkpoint(checkpoint)["agents"]) == 2


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_process_that_hangs_is_mentioned_by_the_one_that_waits(two_ranks):
    torchrun, second, _ = two_ranks
    os.kill(second, signal.SIGSTOP)
    try:
        while "process 0 waits for the others' " not in (line := torchrun.stderr.readline()):
            assert line, "torchrun ended"
        assert "one hangs" in line
    finally:
        os.kill(second, signal.SIGCONT)
        torchrun.terminate()
        torchrun.communicate(timeout=60)
