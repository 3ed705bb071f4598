"""A command line from its start to its exit code: a mistake becomes one line, and signals stop it."""

from __future__ import annotations

import re
import sys
import warnings
from contextlib import ExitStack
from types import TracebackType

from core.experiment.runs.folders import printable
from core.experiment.runs.side_by_side import stop_with_parent
from core.experiment.runs.signals import Interrupted, StopSignals

EXIT_CODES = "exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 stopped by Ctrl-C, 143 stopped by SIGTERM"


class UsageError(ValueError):
    """What was asked for makes no sense: exit code 2."""


class RunError(Exception):
    """It could not be done: exit code 1."""


class Command:
    """`with Command("retail/demo.py") as command: ...`, then `return command.exit_code`.

    What the code inside refuses becomes one line on stderr and an exit code, never a traceback. Before `begin_work()` a
    ValueError or a missing file is taken as wrong usage (2), after it as work that could not be done (1).

    Attributes:
        stop: the stop signals (Ctrl-C, SIGTERM, SIGHUP) that have come.
        again: how to go on after a stop, for the user; "" when there is nothing to go on with.
    """

    def __init__(self, name: str):
        self.name, self.exit_code, self.again = name, 0, ""
        self.stop = StopSignals()
        self.at_exit = ExitStack()  # what is to be let go of, such as the lock of a run
        self._working = False
        self._warnings = warnings.catch_warnings()

    def begin_work(self) -> None:
        """Everything that can be refused has been."""
        self._working = True

    def __enter__(self) -> Command:
        for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        self.stop.__enter__()
        stop_with_parent()
        self._warnings.__enter__()
        warnings.showwarning = lambda message, *_: print(f"warning: {printable(str(message))}", file=sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self._warnings.__exit__(None, None, None)
        self.stop.__exit__()
        self.at_exit.close()
        _leave_other_processes()
        if isinstance(error, Interrupted):
            self.exit_code = 128 + error.number
            hint = "; ".join(part for part in (error.hint, self.again) if part)
            print(f"{self.name}: stopped. {hint}".rstrip(), file=sys.stderr)
            return True
        code = self._code(error)
        if code is None:
            return False
        self.exit_code = code
        print(f"{self.name}: {printable(_sentence(error))}", file=sys.stderr)
        return True

    def _code(self, error: BaseException | None) -> int | None:
        if isinstance(error, UsageError):
            return 2
        if isinstance(error, (ValueError, FileNotFoundError, IsADirectoryError)):
            return 1 if self._working else 2
        if isinstance(error, (RunError, OSError, FloatingPointError, MemoryError)):
            return 1
        if isinstance(error, RuntimeError) and _is_of_memory(error):
            return 1
        return None


def _is_of_memory(error: BaseException | None) -> bool:
    """Of Python, NumPy or PyTorch, on any device; also sizes that no memory could be counted in."""
    words = ("allocat", "out of memory", "overflow")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _sentence(error: BaseException | None) -> str:
    if not isinstance(error, (RuntimeError, MemoryError)) or not _is_of_memory(error):
        return str(error)
    asked = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
    size = f"{asked[1]} of memory" if asked else "more memory than there is"
    return f"{size} cannot be had; lower buffer_size, hidden_sizes, batch_size or --num-envs, which ask for most"


def _leave_other_processes() -> None:
    if "core.experiment.runs.distributed" in sys.modules:
        sys.modules["core.experiment.runs.distributed"].finish()
