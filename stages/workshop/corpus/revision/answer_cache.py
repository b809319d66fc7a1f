"""Answers on disk, so that none is paid for twice: JSON lines, only ever appended to, each synced before it counts.

A kill at any moment loses at most the answers that had not arrived. A half-written last line is cut off at the next
opening; a line damaged in some other way is passed over, and its answer asked for again. One process writes at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.artifacts.errors import ArtifactError
from stages.workshop.corpus.revision.answers import Reply


class AnswerCache:
    """Answers by the digest of their question. Only digests and places are in memory."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            ArtifactError: another process has it, or it cannot be written.
        """
        self.path = path
        self.damaged = 0
        self._places: dict[bytes, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A pipe would block for ever.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise _unusable(path, error.strerror) from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise _unusable(path, "it is no regular file")
            self._lock()
            self._end = self._read()
        except BaseException:
            os.close(self._file)
            raise
        self._synced = self._end
        self._syncing = asyncio.Lock()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def get(self, key: str) -> Reply | None:
        """The answer to a question, or None."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        with os.fdopen(os.dup(self._file), "rb") as stream:
            stream.seek(place)
            found = _parse(stream.readline())
        return found[1] if found is not None else None

    async def put(self, key: str, reply: Reply) -> None:
        """Keeps an answer; returns when it is on the disk. Answers that arrive together share one wait.

        Raises:
            ArtifactError: the disk is full, or fails.
        """
        line = json.dumps({"key": key, **reply._asdict()}, ensure_ascii=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        place = self._end
        try:
            self._append(data)
            async with self._syncing:
                if self._synced < place + len(data):
                    reached = self._end
                    await asyncio.to_thread(os.fsync, self._file)
                    self._synced = reached
        except OSError as error:
            raise _unusable(self.path, error.strerror) from error
        self._places[bytes.fromhex(key)] = place

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # Half a line in the middle would take the next one with it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError(
                f"{self.path} is being written by another bluelm.",
                "Two would ask the same questions twice.",
                "Wait for it to end, or name another file with --cache.",
            ) from error

    def _read(self) -> int:
        """Notes where answers lie, and cuts off half a line at the end; the length of what is whole."""
        place = 0
        with os.fdopen(os.dup(self._file), "rb") as stream:
            stream.seek(0)
            for line in stream:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, place)
                    break
                found = _parse(line)
                if found is None:
                    self.damaged += 1
                else:
                    self._places[bytes.fromhex(found[0])] = place
                place += len(line)
        return place


def _parse(line: bytes) -> tuple[str, Reply] | None:
    """A line's key and answer; None where it is none of ours."""
    try:
        entry: Any = json.loads(line)
        key = str(entry.pop("key"))
        reply = Reply(**entry)
        well_formed = len(bytes.fromhex(key)) > 0 and isinstance(reply.text, str) and isinstance(reply.finish, str)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (key, reply) if well_formed else None


def _unusable(path: Path, why: str | None) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be written: {why}.",
        "Answers are kept there, so that none is paid for twice; those that it holds stay.",
        "Free some space or mend its rights, or name another file with --cache.",
    )
