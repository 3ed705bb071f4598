"""Real faults, injected one by one: `python tests/faults.py --times 10` runs the long form and prints its counts.

Each kind is a promise in words. An injection is *survived* if what was whole stays whole, or the mistake ends in one
line and an exit code of 1 or 2; it is *lost* if saved work is gone, another result comes out, or a traceback is shown.
Signals, processes and full disks are real. `tests/test_faults.py` runs every kind a few times.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository root: run from any folder

import numpy as np
import pandas as pd
import torch

import main as main_script
from core.experiment.runs.checkpoint import load_checkpoint
from core.qmix import QMIXTeam
from core.team.files import write_tensors
from retail.train import main as train

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--num-envs", "2", "--eval-episodes", "2", "--eval-every", "0", "--no-plots", "--quiet", "--algo", "mappo"]
FAST = ["--set", "epochs=1", "hidden_sizes=[8]"]
Injection = tuple[str, Callable[[], Any]]  # what is done, in words; returns True, or what went wrong


# --- helpers ----------------------------------------------------------------------------------------------------------


def refused(call: Callable[[], int]) -> Any:
    """True if the call ends with exit code 1 or 2 and one line that is no traceback; else what came instead."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = call()
        except SystemExit as stopped:
            code = stopped.code
        except BaseException as error:  # what a user would see as a traceback
            return f"{type(error).__name__}: {error}"
    last = said.getvalue().strip().split("\n")[-1]
    return True if code in (1, 2) and last and "Traceback" not in said.getvalue() else f"exit code {code}: {last}"


def raises_value_error(call: Callable[[], Any]) -> Any:
    try:
        call()
    except ValueError:
        return True
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


class World:
    """A small finished run, and copies of it that may be spoilt."""

    def __init__(self, scratch: Path):
        self.scratch, self.copies = scratch, 0
        out = scratch / "original"
        assert train([*TINY, *FAST, "--episodes", "8", "--save-every", "2", "--out", str(out)]) == 0
        self.run = out / (out / "latest").read_text().strip()
        self.whole = pd.read_csv(self.run / "progress.csv").drop(columns="seconds")
        self.team = scratch / "team.pt"
        team = QMIXTeam(3, 2, 2, {"seed": 0, "hidden_sizes": [8]})
        team.save(self.team)

    def copy(self) -> Path:
        self.copies += 1
        return Path(shutil.copytree(self.run, self.scratch / f"copy{self.copies}"))

    def file(self, content: str | bytes) -> Path:
        self.copies += 1
        path = self.scratch / f"file{self.copies}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def resume(self, run: Path, *flags: str) -> int:
        return train(["--resume", str(run), "--quiet", "--no-plots", "--out", str(self.scratch), *flags])

    def new(self, *flags: str) -> int:
        return train([*TINY, "--episodes", "2", "--out", str(self.scratch / "new"), *flags])

    def start(self, out: Path, episodes: int = 60, **options: Any) -> subprocess.Popen:
        flags = [*TINY, *FAST, "--episodes", str(episodes), "--save-every", "2", "--out", str(out)]
        command = [sys.executable, str(ROOT / "retail" / "train.py"), *flags]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)

    def config_changed(self, key: str, value: Any) -> Path:
        run = self.copy()
        config = json.loads((run / "config.json").read_text())
        config[key] = value
        if value is REMOVED:
            del config[key]
        (run / "config.json").write_text(json.dumps(config))
        return run

    def checkpoint_changed(self, change: Callable[[dict], Any]) -> Path:
        run = self.copy()
        (run / "checkpoint_previous.pt").unlink(missing_ok=True)
        payload = load_checkpoint(run / "checkpoint.pt")
        change(payload)
        write_tensors(run / "checkpoint.pt", payload)
        return run


REMOVED = object()


def each(words: str, values: list, call: Callable[[Any], Any]) -> Iterator[Injection]:
    for value in values:
        yield f"{words} {str(value)[:60]!r}", lambda value=value: call(value)


@contextlib.contextmanager
def little_memory(spare: int = 2**31) -> Iterator[None]:
    """A machine with 2 GB more than is used now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# --- bad command lines ------------------------------------------------------------------------------------------------

HUGE = 10**20


def numbers_that_no_machine_has(world: World, chance: random.Random) -> Iterator[Injection]:
    for key in ("batch_size", "state_size", "rollout_length", "minibatches", "epochs", "epsilon_decay_steps"):
        yield from each(key, [HUGE, -HUGE, "1e300"], lambda v, k=key: refused(lambda: world.new("--set", f"{k}={v}")))


def values_of_the_wrong_kind(world: World, chance: random.Random) -> Iterator[Injection]:
    for key in ("gamma", "learning_rate", "hidden_sizes", "share_parameters"):
        values = ["NaN", "1e400", '"text"', "null", "{}", "[[]]", "9" * 5000]
        yield from each(key, values, lambda v, k=key: refused(lambda: world.new("--set", f"{k}={v}")))


def more_memory_than_there_is(world: World, chance: random.Random) -> Iterator[Injection]:
    def call(flags: list[str]) -> Any:
        with little_memory():
            return refused(lambda: world.new(*flags))

    sizes = [["--set", "hidden_sizes=[100000,100000]"], ["--set", "hidden_sizes=[9999999999]"]]
    sizes += [["--algo", "qmix", "--set", f"buffer_size={10**10 + chance.randrange(9)}"]]
    sizes += [
        ["--algo", "maddpg", "--set", f"buffer_size={10**12}"],
        ["--algo", "qmix", "--set", "action_levels=1000000000"],
    ]
    yield from each("sizes", sizes, call)


def configurations_that_are_no_json(world: World, chance: random.Random) -> Iterator[Injection]:
    contents = [b"", b"{", b"\xff\xfe{", b'{"a":' * 100_000, b"[" * 100_000, b"[1]", b"null", b"1e999", b"\x00" * 9]
    contents += [b'{"batch_size": 1e400}', b'{"gamma": NaN}', b'{"batch_size": ' + b"9" * 5000 + b"}"]
    yield from each("configuration", contents, lambda c: refused(lambda: world.new("--config", str(world.file(c)))))


def things_that_are_no_files(world: World, chance: random.Random) -> Iterator[Injection]:
    pipe = world.scratch / f"pipe{chance.random()}"
    os.mkfifo(pipe)
    places = [pipe, "/dev/zero", world.scratch, world.scratch / "missing", "/dev/null/x", "a" * 300]
    for flag in ("--config", "--data", "--resume"):
        yield from each(flag, places, lambda v, f=flag: refused(lambda: world.new(f, str(v))))


def devices_that_are_not_there(world: World, chance: random.Random) -> Iterator[Injection]:
    names = ["mps", "xpu", "meta", "gpu", "cuda:99", "cuda:-1", "cpu:x", f"cpu:{HUGE}"]
    yield from each("--device", names, lambda v: refused(lambda: world.new("--device", v)))


def flags_that_do_not_exist_or_make_no_sense(world: World, chance: random.Random) -> Iterator[Injection]:
    lines = [["--epsiodes", "3"], ["--episodes", "0"], ["--episodes", "x"], ["--seed", "-1"], ["--seed", str(HUGE)]]
    lines += [["--seeds", "1", "1"], ["--algo", "dqn"], ["--difficulty", "7"], ["--set", "gamma"], ["--set", "=1"]]
    lines += [
        ["--set", "gama=0.9"],
        ["--set", "seed=3"],
        ["--threads", "0"],
        ["--num-envs", "0"],
        ["--set", "x" * 9999],
    ]
    yield from each("flags", lines, lambda v: refused(lambda: world.new(*v)))


def folders_that_cannot_be_written(world: World, chance: random.Random) -> Iterator[Injection]:
    places = ["/dev/null", "/proc/none", str(world.file("")), "b" * 300]
    yield from each("--out", places, lambda v: refused(lambda: world.new("--out", v)))


# --- edited and damaged files -----------------------------------------------------------------------------------------

ODD: list[Any] = [REMOVED, None, -1, HUGE, "x", [], {}, 0.5]


def edited_options(world: World, chance: random.Random) -> Iterator[Injection]:
    keys = "episodes num_envs algo seed hyperparameters env_options problem data_sha256 world"
    for key in keys.split():
        odd = [v for v in ODD if not (v == {} and key in ("env_options", "data_sha256", "hyperparameters"))]
        yield from each(key, odd, lambda v, k=key: refused(lambda: world.resume(world.config_changed(k, v))))


def edited_hyperparameters(world: World, chance: random.Random) -> Iterator[Injection]:
    for key in ("gamma", "hidden_sizes", "rollout_length"):
        for value in (None, -1, HUGE, "x", [], {}):
            config = json.loads((world.run / "config.json").read_text())["hyperparameters"] | {key: value}
            if (key, value) != ("hidden_sizes", []):
                call = lambda c=config: refused(lambda: world.resume(world.config_changed("hyperparameters", c)))  # noqa: E731
                yield f"{key} {value!r}", call


def questions_about_edited_runs(world: World, chance: random.Random) -> Iterator[Injection]:
    for key in ("problem", "algo", "difficulty"):
        for flag in ("--audit", "--what-if"):
            odd = [v for v in ODD if v is not REMOVED]
            yield from each(
                f"{flag} {key}",
                odd,
                lambda v, k=key, f=flag: refused(lambda: main_script.main([f, str(world.config_changed(k, v))])),
            )


def paths_of(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to every entry of nested dictionaries and lists."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from paths_of(part, (*path, key))


def edited_checkpoints(world: World, chance: random.Random) -> Iterator[Injection]:
    """Whatever is removed or replaced: one line, or a run that goes on; never a traceback."""

    def unharmed(run: Path) -> Any:
        answer = refused(lambda: world.resume(run, "--episodes", "10"))
        return True if answer is True or str(answer).startswith("exit code 0") else answer

    places = list(paths_of(load_checkpoint(world.run / "checkpoint.pt")))
    for path in chance.sample(places, 14):
        for value in chance.sample([REMOVED, None, -1, "x", [], {}, torch.zeros(1), HUGE], 2):

            def change(payload: dict, path: tuple = path, value: Any = value) -> None:
                for key in path[:-1]:
                    payload = payload[key]
                if value is REMOVED:
                    del payload[path[-1]]
                else:
                    payload[path[-1]] = copy.deepcopy(value)

            yield f"{path} {value!r}", lambda c=change: unharmed(world.checkpoint_changed(c))


def sizes_that_would_fill_the_memory(world: World, chance: random.Random) -> Iterator[Injection]:
    for key in ("state_dim", "action_dim", "num_agents"):
        for value in (10**7, 10**12, HUGE, -1, None):
            run = world.checkpoint_changed(lambda p, k=key, v=value: p["agents"][0]["sizes"].update({k: v}))
            yield f"{key} {value}", lambda r=run: refused(lambda: main_script.main(["--audit", str(r)]))


def flipped_bits_in_teams(world: World, chance: random.Random) -> Iterator[Injection]:
    """A bit of a saved team's content changes: it is refused, or the very same team comes back."""
    raw, weights = world.team.read_bytes(), QMIXTeam.load(world.team).networks

    def call(place: int) -> Any:
        spoilt = bytearray(raw)
        spoilt[place // 8] ^= 1 << place % 8
        try:
            team = QMIXTeam.load(world.file(bytes(spoilt)))
        except ValueError:
            return True
        pairs = [(a.flat, b.flat) for k in weights for a, b in zip(weights[k].stacks(), team.networks[k].stacks())]  # noqa: B905
        return all(torch.equal(a, b) for a, b in pairs) or "another team was loaded"

    yield from each("bit", [chance.randrange(8 * len(raw)) for _ in range(20)], call)


def halves_of_teams(world: World, chance: random.Random) -> Iterator[Injection]:
    raw = world.team.read_bytes()
    cuts = [0, 1, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(5))]
    yield from each("length", cuts, lambda n: raises_value_error(lambda: QMIXTeam.load(world.file(raw[:n]))))


def a_damaged_checkpoint_falls_back(world: World, chance: random.Random) -> Iterator[Injection]:
    """The save before a damaged one is continued, and the result is that of the run that was never disturbed."""

    def call(length: int) -> Any:
        run = world.copy()
        file = run / "checkpoint.pt"
        file.write_bytes(file.read_bytes()[:length])
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            code = world.resume(run)
        return same_as_whole(world, run) if code == 0 else f"exit code {code}"

    size = (world.run / "checkpoint.pt").stat().st_size
    yield from each("length", [0, size - 1, chance.randrange(size)], call)


def same_as_whole(world: World, run: Path) -> Any:
    found = pd.read_csv(run / "progress.csv").drop(columns="seconds")
    return True if found.equals(world.whole) else "another result than that of the undisturbed run"


# --- broken promises of environments, late in an episode --------------------------------------------------------------


def late_in_training(world: World, chance: random.Random) -> Iterator[Injection]:
    from teams import make_team
    from test_foreign_values import LATER, NAN, Later, StuckLater

    from core.experiment.training import train as train_team

    def call(env: Any) -> Any:
        return raises_value_error(lambda: train_team(env, make_team("mappo", state_dim=1), 1, progress=False))

    for case, (change, _) in LATER.items():
        yield case, lambda c=change: call(Later(c))
    for masks in (0.0, NAN, 0.5):
        yield f"masks of {masks}", lambda m=masks: call(StuckLater(m))


def masks_that_allow_nothing_or_are_none(world: World, chance: random.Random) -> Iterator[Injection]:
    team, nan = QMIXTeam.load(world.team), float("nan")
    seen, agent = np.zeros((2, 3), np.float32), chance.randrange(2)
    for words, wrong in {"NaN": nan, "0.5": 0.5, "2": 2, "text": "yes", "False": False}.items():
        masks = np.ones((2, 2), object if isinstance(wrong, str) else float if wrong is not False else bool)
        masks[agent] = wrong
        yield f"masks of {words}", lambda m=masks: raises_value_error(lambda: team.select_actions(seen, False, m))
        act = lambda m=masks[agent]: raises_value_error(lambda: team[agent].select_action(seen[agent], False, m))  # noqa: E731
        yield f"a mask of {words}", act
    yield from each(
        "shape",
        [(3, 2), (2, 3), (2,)],
        lambda s: raises_value_error(lambda: team.select_actions(seen, False, np.ones(s, bool))),
    )


def what_no_team_can_be_made_of(world: World, chance: random.Random) -> Iterator[Injection]:
    sizes = {"state_dim": 3, "action_dim": 2, "num_agents": 2}
    for name in sizes:
        values = [0, -1, 2.5, "3", None, True, 10**12 + chance.randrange(9), HUGE]
        yield from each(name, values, lambda v, n=name: raises_value_error(lambda: QMIXTeam(**{**sizes, n: v})))
    for name, values in {
        "config": [[1], "gamma", 3, {1: 2}, {"gamma": np.zeros(2)}, {"hidden_sizes": [[8]]}, {"mixing_width": 2**62}],
        "device": ["x", 3.5, [1], "meta", "cuda:99"],
        "devices": [2, ["cpu"], ["cpu"] * 3],
    }.items():
        yield from each(name, values, lambda v, n=name: raises_value_error(lambda: QMIXTeam(**sizes, **{n: v})))
    state = QMIXTeam.load(world.team).state_dict()
    for key in state:
        spoilt = {**state, key: chance.choice([None, 3, "x", [[]]])}
        if key not in ("buffer", "extra", "config"):  # the first two may be nothing, the last one is not taken over
            yield (
                f"state {key}",
                lambda s=spoilt: raises_value_error(lambda: QMIXTeam(3, 2, 2, state["config"]).load_state_dict(s)),
            )


def diverged_teams_are_not_saved(world: World, chance: random.Random) -> Iterator[Injection]:
    def call(value: float) -> Any:
        team, path = QMIXTeam.load(world.team), world.file(world.team.read_bytes())
        stack = chance.choice([s for network in team.networks.values() for s in network.stacks()])
        with torch.no_grad():
            stack.flat[chance.randrange(stack.flat.numel())] = value
        try:
            team.save(path)
        except FloatingPointError:
            return path.read_bytes() == world.team.read_bytes() or "the good file is gone"
        return "saved"

    yield from each("weight", [float("nan"), float("inf"), -float("inf")] * 2, call)


# --- signals, processes, disks ----------------------------------------------------------------------------------------


def wait_for_first_save(process: subprocess.Popen, out: Path) -> Path | None:
    while process.poll() is None:
        found = list(out.glob("*/checkpoint.pt"))
        if found:
            return found[0].parent
        time.sleep(0.02)
    return None


def stopped_by(world: World, chance: random.Random, number: int) -> Any:
    """Stop a training at a random moment after its first save, go on, and compare with the undisturbed one.

    It goes on by the words that it printed; one that was killed, or was done already, printed none.
    """
    with tempfile.TemporaryDirectory(dir=world.scratch) as folder:
        out = Path(folder)
        process = world.start(out, episodes=8)
        run = wait_for_first_save(process, out)
        time.sleep(0.05 * chance.random())
        process.send_signal(number)
        said = process.communicate(timeout=600)[1]
        expected = (-number,) if number == signal.SIGKILL else (128 + number,)
        if process.returncode not in (*expected, 0) or "Traceback" in said:
            return f"exit code {process.returncode}: {said[-200:]}"
        if run is None:
            return f"no save: {said[-200:]}"
        printed = re.search(r"continue with: (.+)", said)
        if printed is None and process.returncode > 0:
            return f"nothing says how to go on: {said[-200:]}"
        script, *flags = shlex.split(printed[1])[1:] if printed else ("retail/train.py", "--resume", str(run))
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            code = train(flags) if (ROOT / script).samefile(ROOT / "retail/train.py") else f"{script} is another script"
        return same_as_whole(world, run) if code == 0 else f"resumed with exit code {code}"


def a_stop(number: int) -> Callable[[World, random.Random], Iterator[Injection]]:
    def kind(world: World, chance: random.Random) -> Iterator[Injection]:
        yield signal.Signals(number).name, lambda: stopped_by(world, chance, number)

    return kind


def files_that_may_not_grow(world: World, chance: random.Random) -> Iterator[Injection]:
    """The system's limit on the size of files: the save fails like on a full disk, and the old file is whole."""
    team, limit = QMIXTeam.load(world.team), chance.randrange(1, world.team.stat().st_size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = world.file(world.team.read_bytes())

    def call() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            team.save(path)
        except OSError as error:
            left = list(path.parent.glob(f"{path.name}.*"))
            whole = path.read_bytes() == world.team.read_bytes() and not left and error.filename == str(path)
            return whole or "the old file is damaged, or a leftover stays"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return "saved beyond the limit"

    yield f"{limit} bytes", call


def full_disks(world: World, chance: random.Random) -> Iterator[Injection]:
    """A disk of a size drawn at random (a tmpfs; only where one may be mounted) fills up while teams are saved."""
    disk = world.scratch / f"disk{chance.randrange(10**9)}"
    disk.mkdir()
    size = chance.randrange(12, 60)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], capture_output=True).returncode:
        return

    def call() -> Any:
        team, saved = QMIXTeam.load(world.team), 0
        try:
            for number in range(50):
                try:
                    team.save(disk / f"{number}.pt")
                except OSError as error:
                    whole = all(QMIXTeam.load(path).updates == 0 for path in disk.glob("*"))
                    return (whole and len(list(disk.glob("*"))) == saved and "space" in str(error)) or "not whole"
                saved += 1
            return "the disk was never full"
        finally:
            subprocess.run(["umount", disk], check=True)

    yield f"{size} KB", call


def links_are_not_followed(world: World, chance: random.Random) -> Iterator[Injection]:
    """Whoever may write into the folder lays links under guessable names: the victim stays as it is."""

    def call(name: str) -> Any:
        folder = Path(tempfile.mkdtemp(dir=world.scratch))
        victim = folder / "victim"
        victim.write_text("mine")
        (folder / name).symlink_to(victim)
        QMIXTeam.load(world.team).save(folder / "team.pt")
        return victim.read_text() == "mine" or "a link was followed"

    names = ["team.pt", "team.pt.tmp", f"team.pt.{os.getpid()}.tmp", "team_new.pt", "team.pt.new"]
    yield from each("link", names, call)


def two_processes_do_not_share_a_run(world: World, chance: random.Random) -> Iterator[Injection]:
    def call() -> Any:
        with tempfile.TemporaryDirectory(dir=world.scratch) as folder:
            first = world.start(Path(folder), episodes=4000)
            try:
                run = wait_for_first_save(first, Path(folder))
                return refused(lambda: world.resume(run))
            finally:
                first.kill()
                first.communicate()

    yield "a second --resume", call


def a_reader_that_leaves(world: World, chance: random.Random) -> Iterator[Injection]:
    def call() -> Any:
        with tempfile.TemporaryDirectory(dir=world.scratch) as folder:
            flags = [flag for flag in TINY if flag != "--quiet"]
            command = [sys.executable, str(ROOT / "retail" / "train.py"), *flags, *FAST, "--episodes", "4"]
            writer = subprocess.Popen([*command, "--out", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            writer.stdout.readline()
            writer.stdout.close()
            said = writer.stderr.read().decode()
            writer.wait(timeout=600)
            done = len(list(Path(folder).glob("*/evaluation.csv")))
            return (done == 1 and "Traceback" not in said) or f"{done} results, {said[-200:]}"

    yield "| head -1", call


KINDS: dict[str, Callable[[World, random.Random], Iterator[Injection]]] = {
    "numbers that no machine has are refused": numbers_that_no_machine_has,
    "values of the wrong kind are refused": values_of_the_wrong_kind,
    "more memory than there is is refused": more_memory_than_there_is,
    "configurations that are no JSON are refused": configurations_that_are_no_json,
    "pipes, devices and missing files are refused": things_that_are_no_files,
    "devices that are not there are refused": devices_that_are_not_there,
    "flags that make no sense are refused": flags_that_do_not_exist_or_make_no_sense,
    "folders that cannot be written are refused": folders_that_cannot_be_written,
    "edited options of a run are refused": edited_options,
    "edited hyper-parameters of a run are refused": edited_hyperparameters,
    "audit and what-if refuse an edited run": questions_about_edited_runs,
    "an edited checkpoint ends in no traceback": edited_checkpoints,
    "sizes that would fill the memory are refused": sizes_that_would_fill_the_memory,
    "a flipped bit in a saved team is noticed": flipped_bits_in_teams,
    "half a saved team is refused": halves_of_teams,
    "a damaged checkpoint falls back to the one before": a_damaged_checkpoint_falls_back,
    "an environment that breaks its promise late is refused": late_in_training,
    "masks that are no flags, or allow nothing, are refused": masks_that_allow_nothing_or_are_none,
    "what no team can be made of is refused": what_no_team_can_be_made_of,
    "a diverged team is not saved over a good one": diverged_teams_are_not_saved,
    "Ctrl-C loses nothing": a_stop(signal.SIGINT),
    "SIGTERM loses nothing": a_stop(signal.SIGTERM),
    "SIGHUP loses nothing": a_stop(signal.SIGHUP),
    "SIGKILL loses nothing that was saved": a_stop(signal.SIGKILL),
    "a file that may not grow leaves the old one whole": files_that_may_not_grow,
    "a full disk leaves whole what is on it": full_disks,
    "links under guessable names are not followed": links_are_not_followed,
    "two processes do not share a run": two_processes_do_not_share_a_run,
    "a reader that leaves stops no training": a_reader_that_leaves,
}
SLOW = ("Ctrl-C", "SIG", "two processes", "a reader", "a damaged checkpoint")


def inject(world: World, kind: str, seed: int, at_most: int | None = None) -> list[tuple[str, Any]]:
    """Every injection of a kind (or a few, drawn) -> what was done, and True or what went wrong."""
    chance = random.Random(f"{kind} {seed}")
    found = list(KINDS[kind](world, chance))
    if at_most is not None and len(found) > at_most:
        found = chance.sample(found, at_most)
    return [(words, call()) for words, call in found]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Inject every kind of fault and count what is survived.")
    parser.add_argument(
        "--times", type=int, default=10, help="rounds of every kind, each with its own luck (default: 10)"
    )
    times, lost, total = parser.parse_args(argv).times, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        world = World(Path(scratch))
        for kind in KINDS:
            outcomes = [outcome for seed in range(times) for outcome in inject(world, kind, seed)]
            bad = [(words, answer) for words, answer in outcomes if answer is not True]
            total, lost = total + len(outcomes), lost + len(bad)
            print(
                f"{len(outcomes):5} injected {len(outcomes) - len(bad):5} survived {len(bad):3} lost  {kind}",
                flush=True,
            )
            for words, answer in bad[:5]:
                print(f"      {words}: {answer}", flush=True)
    print(f"{len(KINDS)} kinds, {total} injections, {total - lost} survived, {lost} lost")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
