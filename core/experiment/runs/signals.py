"""Ctrl-C and SIGTERM: finish what can be finished, and pass them on to child processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal stopped the program: exit code 128 + its number. Not an Exception, so that nothing swallows it."""

    def __init__(self, number: int, hint: str = ""):
        super().__init__(hint)
        self.number, self.hint = number, hint


class StopSignals:
    """Turns Ctrl-C and SIGTERM into a request while something can be finished first, into a stop otherwise.

    Inside `with stop.patiently():` the first signal only sets `requested`; whoever runs the loop looks at it. A second
    one, or one outside, raises Interrupted at once.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.patient = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in STOPPING:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Inside, the first signal is left to whoever asks for `requested`."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False

    def _handle(self, number: int, _frame: object) -> None:
        first = self.requested is None
        self.requested = number
        if not (self.patient and first):
            raise Interrupted(number)
        name = signal.Signals(number).name
        print(f"\n{name}: finishing this round of episodes and saving; once more stops at once", file=sys.stderr)


def run_side_by_side(scripts: Sequence[tuple[Path, Sequence[str]]]) -> int:
    """Run Python scripts (path, flags) at the same time; their output comes one after the other, in this order.

    Small networks keep one core busy, so two scripts on two cores take the time of the longer one. Ctrl-C and SIGTERM
    are passed on to all of them. Returns the first exit code that is not 0, else 0.
    """
    children: list[subprocess.Popen] = []

    def pass_on(number: int, _frame: object) -> None:
        for child in children:
            child.send_signal(number)

    if len(scripts) > 1:
        names = [f"{path.parent.name}/{path.name}" for path, _ in scripts]
        print(f"{' and '.join(names)} run at the same time; you will read of one after the other.\n", flush=True)
    previous = {number: signal.signal(number, pass_on) for number in STOPPING}
    try:
        for path, flags in scripts:
            # The first one has the terminal, and its progress bar; what the others say waits in a pipe for its turn.
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if children else {}
            # A session of its own: a terminal would send Ctrl-C to the children too, and they would get it twice.
            children.append(subprocess.Popen([sys.executable, str(path), *flags], start_new_session=True, **pipes))
        for child in children:
            for line in child.stdout or ():
                print(line, end="", flush=True)
            child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return next((child.returncode for child in children if child.returncode), 0)
