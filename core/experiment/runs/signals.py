"""Ctrl-C, SIGTERM and SIGHUP: finish what can be finished, then stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def stop_quietly() -> None:
    """Until a `Command` begins: a stop signal ends this process at once, with 128 + its number and no traceback.

    A script calls it before the imports that take seconds.
    """
    for number in STOPPING:
        signal.signal(number, lambda number, _: os._exit(128 + number))


class Interrupted(BaseException):
    """A signal stopped the program: exit code 128 + its number. Not an Exception, so that nothing swallows it."""

    def __init__(self, number: int, hint: str = ""):
        super().__init__(hint)
        self.number, self.hint = number, hint


class StopSignals:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request while something can be finished first, into a stop otherwise.

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
