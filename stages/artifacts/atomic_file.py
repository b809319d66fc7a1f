"""A file that appears whole or not at all, whatever ends the process that writes it.

It is written under another name beside its place, brought to the disk, and renamed. What a killed process leaves
behind is named `.….partial`: nothing reads that, and an artifact never takes it in.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
# More files than these are brought to the disk all at once, by one call to the system.
_FEW_FILES = 64
_USUAL, _PRIVATE = 0o666, 0o600


@contextmanager
def atomic_file(path: Path, *, private: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yields an empty file to be written, and puts it in the place of `path` when the block ends without an error.

    It has the rights that the system gives new files, whatever the library that writes it thinks of them. A link stays
    one, and what it leads to is replaced; a device or a pipe is written to as it is.

    Args:
        path: the file; one that is there stays until the new one is whole. Its folder exists.
        private: only the owner may read it, from the first byte on.
        durable: a power cut leaves the old file or the new one too; not worth its time (milliseconds) for what is
            made again at no cost.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    part, mode = _new_file(path, _PRIVATE if private else _USUAL)
    try:
        yield part
        if stat.S_IMODE(part.stat().st_mode) != mode:
            part.chmod(mode)
        if durable:
            sync_file(part)
        part.replace(path)
    except BaseException:  # an interrupt, too, leaves nothing behind
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    if durable:
        sync_file(path.parent)


def write_atomically(path: Path, content: str | bytes, *, private: bool = False, durable: bool = True) -> None:
    """Writes a whole file in one step; text as UTF-8.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    with atomic_file(path, private=private, durable=durable) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def is_partial(path: Path) -> bool:
    """Whether a name is one that unfinished files have."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL_SUFFIX)


def sync_file(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Makes a folder with all that it holds survive a power cut."""
    entries = [folder, *(entry for entry in folder.rglob("*") if not entry.is_symlink())]
    if len(entries) > _FEW_FILES and _sync_filesystem(folder):
        return
    for entry in entries:
        sync_file(entry)


def _new_file(path: Path, rights: int) -> tuple[Path, int]:
    """An empty file beside the path, of this process and thread alone, and the mode that the system gave it."""
    for number in itertools.count():
        # Not the file's own name: one as long as the system allows has no room for more.
        name = f".{os.getpid():x}-{threading.get_ident():x}-{number}{PARTIAL_SUFFIX}"
        part = path.with_name(name)
        with contextlib.suppress(FileExistsError):  # a file within a file, or what a killed process left
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, rights)
            try:
                return part, stat.S_IMODE(os.fstat(handle).st_mode)
            finally:
                os.close(handle)
    raise AssertionError("unreachable")


def _sync_filesystem(folder: Path) -> bool:
    """Brings all of a file system to the disk; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        return bool(libc.syncfs(handle) == 0)
    finally:
        os.close(handle)
