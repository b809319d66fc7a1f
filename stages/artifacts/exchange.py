"""Putting a finished folder in place: one rename, or one atomic exchange with what was there.

`os.replace` cannot replace a non-empty folder. Linux can exchange two folders in one system call; elsewhere the old
one is moved aside first, and a kill between the two moves is undone at the next open (`recover`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from pathlib import Path

from stages.artifacts.atomic_file import sync_file

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def aside_path(target: Path) -> Path:
    """Where the old folder waits while the new one takes its place."""
    whole = Path(os.path.abspath(target))  # noqa: PTH100  (resolve() would follow a link at the target itself)
    return whole.with_name(f".{whole.name}.bluelm-old")


def put_in_place(finished: Path, target: Path) -> None:
    """Makes `finished` the content of `target`; what was there before is removed.

    Both lie in the same folder, so that the rename is atomic.
    """
    if not target.exists():
        finished.rename(target)
        sync_file(target.parent)
    elif _exchange(finished, target):
        sync_file(target.parent)  # before the old one goes
        _remove(finished)
    else:
        aside = aside_path(target)
        target.rename(aside)
        try:
            finished.rename(target)
        except BaseException:
            recover(target)
            raise
        sync_file(target.parent)
        _remove(aside)


def recover(target: Path) -> None:
    """Brings the old folder back where a kill came between the two moves of `put_in_place`."""
    if not Path(os.path.abspath(target)).name:  # noqa: PTH100
        return  # the root: nothing is ever written there
    aside = aside_path(target)
    if not aside.exists():
        return
    if target.exists():
        _remove(aside)
    else:
        aside.rename(target)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two paths atomically where the system can; False where it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    return (
        libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE))
        == 0
    )


def _remove(path: Path) -> None:
    """Removes what is not needed any more; the new one is in place, whatever becomes of it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
