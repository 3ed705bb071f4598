"""Several scripts at the same time, as `main.py --all` runs the demos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from core.experiment.runs.signals import STOPPING

PARENT = "MARL_PARENT_PIPE"  # the environment variable that names the pipe to the parent


def run_side_by_side(scripts: Sequence[tuple[Path, Sequence[str]]]) -> int:
    """Run Python scripts (path, flags) at the same time; their output comes one after the other, in this order.

    Small networks keep one core busy, so two scripts on two cores take the time of the longer one. Stop signals are
    passed on to all of them, and none outlives this process. Returns the first exit code that is not 0, else 0.
    """
    children: list[subprocess.Popen] = []
    asked: list[int] = []  # the signals that came, in order
    told: dict[int, int] = {}  # process -> how many of them it knows of

    def pass_on(number: int | None = None, _frame: object = None) -> None:
        asked.extend([] if number is None else [number])
        for child in children:
            for missed in asked[told.get(child.pid, 0) :]:
                told[child.pid] = told.get(child.pid, 0) + 1
                child.send_signal(missed)

    if len(scripts) > 1:
        names = [f"{path.parent.name}/{path.name}" for path, _ in scripts]
        print(f"{' and '.join(names)} run at the same time; you will read of one after the other.\n", flush=True)
    previous = {number: signal.signal(number, pass_on) for number in STOPPING}
    reading, writing = os.pipe()  # nobody writes: it closes when this process ends, in whatever way
    try:
        for path, flags in scripts:
            # The first one has the terminal, and its progress bar; what the others say waits in a pipe for its turn.
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if children else {}
            # A session of its own: a terminal would send Ctrl-C to the children too, and they would get it twice.
            command, environment = [sys.executable, str(path), *flags], {**os.environ, PARENT: str(reading)}
            children.append(
                subprocess.Popen(command, start_new_session=True, pass_fds=[reading], env=environment, **pipes)
            )
            pass_on()  # what came while this one was started
        for child in children:
            for line in child.stdout or ():
                print(line, end="", flush=True)
            child.wait()
    finally:
        os.close(reading)
        os.close(writing)
        for number, handler in previous.items():
            signal.signal(number, handler)
    codes = [child.returncode for child in children]
    # A child that a signal ended before it could answer has minus its number.
    return next((128 - code if code < 0 else code for code in codes if code), 0)


def stop_with_parent() -> None:
    """Stop this process, as SIGTERM would, when the one that started it by `run_side_by_side` has ended."""
    number = os.environ.pop(PARENT, "")
    if not number.isdigit():
        return

    def watch() -> None:
        os.read(int(number), 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
