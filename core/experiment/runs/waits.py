"""Whoever waits for what may never come says so after a while: a step of an environment, another process."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

PATIENCE = 120.0  # seconds after which a wait is mentioned, once
_wait: waiting_for | None = None  # what this process is waiting for now
_watch: threading.Thread | None = None


class waiting_for:
    """`with waiting_for("step {} of the environment", 7): ...`; cheap enough for every step.

    Args:
        what: a text, put together with `values` only when it is told.
        advice: what may be the reason, or what to do.
    """

    __slots__ = ("what", "values", "advice", "since", "before")

    def __init__(self, what: str, *values: Any, advice: str = "stop with Ctrl-C, twice, if that cannot be"):
        self.what, self.values, self.advice = what, values, advice

    def __enter__(self) -> waiting_for:
        global _wait, _watch
        self.since, self.before, _wait = time.monotonic(), _wait, self
        if _watch is None or not _watch.is_alive():  # the first time, and in a process that was forked
            _watch = threading.Thread(target=_mention_waits, daemon=True)
            _watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        global _wait
        _wait = self.before


def _mention_waits() -> None:
    told = None
    while True:
        time.sleep(min(1.0, PATIENCE))
        now = _wait
        if now is not None and now is not told and time.monotonic() - now.since > PATIENCE:
            told = now
            found = f"{now.what.format(*now.values)}: no answer for {PATIENCE:.0f} s"
            print(f"warning: {found}; {now.advice}", file=sys.stderr, flush=True)
