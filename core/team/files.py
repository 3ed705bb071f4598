"""Files written whole or not at all, and looked at before they are believed.

Everything that is saved passes here: teams, checkpoints, tables. What holds tensors is read with `weights_only=True`,
so that a file from a stranger can be wrong but cannot run code.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST_JSON = 2**24  # bytes


def write_file(path: str | os.PathLike, content: bytes) -> None:
    """Replace the file at `path` in one step: a crash leaves the old content or the new one, and never half.

    Raises:
        OSError: the folder is missing, full or not writable; `error.filename` is `path`. The old file is still there.
    """
    path = Path(path)
    try:
        # Beside it, since a move across disks is no single step; an unguessable name, which follows no link.
        number, temporary = tempfile.mkstemp(prefix=f"{path.name}.{os.getpid()}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def write_tensors(path: str | os.PathLike, payload: Any) -> None:
    """Replace the file at `path` by nested dictionaries and lists of tensors and plain values.

    Raises:
        OSError: as for `write_file`.
    """
    memory = io.BytesIO()  # first: on a full disk torch.save raises a RuntimeError that says nothing of disks
    torch.save(payload, memory)
    write_file(path, memory.getvalue())


def read_tensors(path: str | os.PathLike) -> Any:
    """Read what `write_tensors` wrote; tensors come to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no regular file, or holds something else; the sentence says which.
    """
    path = Path(path)
    require_regular(path)
    try:
        _refuse_damaged_archive(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes make the reader and the unpickler raise
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{path} is damaged ({reason})") from error
    for name, tensor in tensors_of(payload):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            held = tensor.untyped_storage().nbytes() // tensor.element_size()
            raise ValueError(f"{path} is damaged ({name} claims {tensor.numel()} values and holds {held})")
    return payload


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, too large, no regular file, or holds no object.
    """
    path = Path(path)
    require_regular(path)
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path}: {path.stat().st_size} bytes were found; a configuration has some thousands")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # text of another kind, numbers or nesting without an end
        raise ValueError(f"{path} is not valid JSON ({error}); correct the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, found a {type(content).__name__}")
    return content


def require_regular(path: Path) -> None:
    """Raise ValueError for what is there and no file: a pipe would be waited for, a device never ends."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file")


@contextmanager
def refusing_other_shapes(what: str) -> Iterator[None]:
    """Inside, a file is taken apart that somebody may have edited: whatever is missing in it becomes a ValueError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:200]
        raise ValueError(f"{what} does not hold what was saved ({reason}); restore it from a backup") from error


def tensors_of(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of every tensor in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield name or "the tensor", value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_of(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from tensors_of(part, f"{name}[{index}]")


def not_finite(state: dict[str, Any]) -> str | None:
    """The name of a weight, an optimizer's average or a statistic that holds NaN or infinity, if there is one."""
    learnt = {key: value for key, value in state.items() if key != "buffer"}  # experience is checked when it comes in
    odd = (n for n, t in tensors_of(learnt) if t.is_floating_point() and not torch.isfinite(t).all())
    return next(odd, None)


def refuse_non_finite(state: dict[str, Any]) -> None:
    """Refuse to save a team that has left the real numbers over one that has not.

    Raises:
        FloatingPointError: see `not_finite`.
    """
    name = not_finite(state)
    if name is not None:
        raise FloatingPointError(
            f"{name} holds NaN or infinity: the training has diverged, and nothing is saved over the last good "
            "state; continue from that with a smaller learning_rate"
        )


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove what processes that were killed while they wrote a file have left in its folder."""
    for left_over in Path(folder).glob("*.tmp"):
        process = left_over.name.split(".")[-3] if left_over.name.count(".") > 2 else ""
        if process.isdigit() and not _alive(int(process)):
            left_over.unlink(missing_ok=True)


def _refuse_damaged_archive(path: Path) -> None:
    # torch.load does not compare the checksums that torch.save stored: a flipped bit would become a wrong weight.
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed parts, which torch.save never writes")  # a small file could fill the memory
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("parts that are larger than the file")
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"wrong checksum of {broken}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
