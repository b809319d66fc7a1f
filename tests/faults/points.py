"""Faults at chosen moments: every call that changes the disk is a point before which, in which or after which to fail.

`Points` stands in for the functions of `os` and for `open` while a block runs. A point has an operation and a moment:
`before` it, `half` of a write (so many bytes reach the file, the rest does not), `after` it. At the chosen point the
process dies as `kill -9` ends it (`die`), is interrupted as by Ctrl-C (`interrupt`), or finds the disk full and full it
stays (`full`). Files that libraries write on their own (safetensors) are one operation.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

How = Literal["die", "interrupt", "full"]
CODE_OF_DEATH = 77
# Calls that a full disk refuses.
NEEDS_ROOM = ("open", "write", "mkdir", "fsync", "save")
_CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "chmod", "ftruncate", "link", "symlink")


@dataclass
class Points:
    """Counts operations; fails at one of them.

    Attributes:
        at: number of the point to fail at; None to count only.
        how: in which way.
        seen: the points passed: operation and moment.
    """

    at: int | None = None
    how: How = "die"
    seen: list[tuple[str, str]] = field(default_factory=list)
    failed: bool = False

    def meet(self, operation: str, moment: str) -> bool:
        """Passes a point; True where half of a write is to be done before failing."""
        full = self.failed and self.how == "full" and operation in NEEDS_ROOM and moment == "before"
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.seen.append((operation, moment))
        if self.at is None or self.failed or len(self.seen) - 1 != self.at:
            return False
        if self.how == "full" and (operation not in NEEDS_ROOM or moment == "after"):
            return False
        self.failed = True
        return True

    def fail(self) -> None:
        """Ends the process, or raises."""
        if self.how == "die":
            os._exit(CODE_OF_DEATH)
        if self.how == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def around(self, operation: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function with a point before it and one after it."""

        def wrapped(*args: Any, **named: Any) -> Any:
            if self.meet(operation, "before"):
                self.fail()
            done = call(*args, **named)
            if self.meet(operation, "after"):
                self.fail()
            return done

        return wrapped

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stands in for whatever changes files."""
        for name in _CALLS:
            monkeypatch.setattr(os, name, self.around(name, getattr(os, name)))
        monkeypatch.setattr(os, "write", self._write(os.write))
        monkeypatch.setattr(os, "open", self._os_open(os.open))
        opened = self._open(io.open)
        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)
        exchange = __import__("stages.artifacts.exchange", fromlist=["_exchange"])
        monkeypatch.setattr(exchange, "_exchange", self.around("exchange", exchange._exchange))
        for module in ("safetensors.numpy", "safetensors.torch"):
            if (loaded := __import__("sys").modules.get(module)) is not None:
                monkeypatch.setattr(loaded, "save_file", self._save(loaded.save_file))

    def _write(self, call: Callable[..., int]) -> Callable[..., int]:
        def wrapped(handle: int, data: Any) -> int:
            if self.meet("write", "before"):
                self.fail()
            if len(data) > 1 and self.meet("write", "half"):
                call(handle, bytes(data)[: len(data) // 2])
                self.fail()
            return call(handle, data)

        return wrapped

    def _save(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(tensors: Any, path: Any, **named: Any) -> None:
            if self.meet("save", "before"):
                self.fail()
            call(tensors, path, **named)
            if self.meet("save", "half"):
                os.truncate(path, Path(path).stat().st_size // 2)
                self.fail()
            if self.meet("save", "after"):
                self.fail()

        return wrapped

    def _os_open(self, call: Callable[..., int]) -> Callable[..., int]:
        watched = self.around("open", call)

        def wrapped(path: Any, flags: int, *args: Any, **named: Any) -> int:
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return (watched if writes else call)(path, flags, *args, **named)

        return wrapped

    def _open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        points = self

        class Raw(io.FileIO):
            """The file below Python's buffers: a kill loses what is still in them."""

            short = False

            def write(self, data: Any) -> int:
                if self.short or points.meet("write", "before"):
                    self.short = False
                    points.fail()
                if len(data) > 1 and points.meet("write", "half"):
                    # The system tells how much it took, and refuses the rest.
                    written = super().write(bytes(data)[: len(data) // 2])
                    self.short = points.how != "die"
                    return written if self.short and written else points.fail() or 0
                written = super().write(data)
                assert isinstance(written, int)
                return written

        def wrapped(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set(mode) & set("wax+"):
                return call(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if points.meet("open", "before"):
                points.fail()
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if points.meet("open", "after"):
                points.fail()
            if buffering == 0:
                return raw
            buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

        return wrapped
