"""What stands around a write: the lock of one writer, the refusal of a target that cannot be replaced, disk errors."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stages.artifacts.errors import ArtifactError, BluelmError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How numpy's tofile tells of a file that took only a part.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


def refuse_here(out: Path) -> None:
    """Refuses a target whose replacement would take the current folder away.

    Raises:
        ArtifactError: the target is the current folder, one above it, or the root.
    """
    whole = Path(os.path.abspath(out))  # noqa: PTH100  (resolve() would follow a link at the target itself)
    whole = whole.parent.resolve() / whole.name
    if Path.cwd().is_relative_to(whole):
        raise ArtifactError(
            f"{out} is the current folder or one above it.",
            "An artifact takes the place of its whole folder, and this one is being worked in.",
            "Name a new folder, as --out FOLDER",
        )


def refuse_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Refuses a target whose replacement would take what it is made from away.

    Args:
        out: the target.
        inputs: files and folders that are read, and folders that the output will refer to.

    Raises:
        ArtifactError: an input is the target, or lies in it.
    """
    whole = out.resolve()
    for path in inputs:
        if path.resolve().is_relative_to(whole):
            place = "is" if path.resolve() == whole else f"holds {path}, which is"
            raise ArtifactError(
                f"{out} {place} an input.",
                "An artifact takes the place of its whole folder, and the input would be lost with it.",
                "Choose another --out.",
            )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds `.NAME.lock`, so that two processes never write the same target."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_path(out)
    stream = _take_lock(lock, out)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        stream.close()


def lock_path(out: Path) -> Path:
    """The lock of a target: a file that a kill may leave behind, while the lock on it ends with its holder."""
    return out.with_name(f".{out.name}.lock")


def _take_lock(lock: Path, out: Path) -> IO[str]:
    """Opens and locks the lock file; once more where its last holder removed it between the two."""
    while True:
        stream = lock.open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise ArtifactError(
                f"{out} is being written by another bluelm.",
                "Two writers would spoil each other's work.",
                "Wait for it to end, or choose another --out.",
            ) from error
        if lock.exists() and os.fstat(stream.fileno()).st_ino == lock.stat().st_ino:
            return stream
        stream.close()


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turns a full or read-only disk into an error that says so; errors about other files pass."""
    try:
        yield
    except (BluelmError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = _disk_reason(error, out.parent)
        if reason is None:
            raise
        raise ArtifactError(
            f"{out} cannot be written: {reason}.",
            "Nothing was changed: what was there before is still there.",
            "Free some space or choose another --out.",
        ) from error


def _disk_reason(error: BaseException | None, folder: Path) -> str | None:
    """The system's words where an error, or one it was raised from, says that this folder cannot be written."""
    while error is not None:
        reason = _system_reason(error, folder) if isinstance(error, OSError) else _wrapped_reason(error)
        if reason is not None:
            return reason
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _wrapped_reason(error: BaseException) -> str | None:
    """safetensors, onnx and arrow wrap the system's error in their own; its number stands in the text."""
    marks = ("(os error {number})", "[Errno {number}]", "[errno {number}]")
    for number in (*_NO_ROOM, errno.EROFS):
        if any(mark.format(number=number) in str(error) for mark in marks):
            return os.strerror(number)
    return None


def _system_reason(error: OSError, folder: Path) -> str | None:
    if error.errno is None:
        return os.strerror(errno.ENOSPC) if _SHORT_WRITE.search(str(error)) else _wrapped_reason(error)
    if error.errno in _NO_ROOM:
        return error.strerror
    here = error.filename is not None and Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder)
    return error.strerror if here and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else None
