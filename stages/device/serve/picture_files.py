"""Pictures under one folder: nothing outside of it is opened, whatever a path or a link says."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stages.device.serve.api_errors import ApiError


class PictureFolder:
    """A folder whose pictures requests may name as `file:///whole/path` or `file:path/inside`.

    Args:
        root: the folder; it must exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)

    def read(self, url: str, place: str, limit: int) -> bytes:
        """A file's bytes.

        Args:
            url: a `file:` URL.
            place: where in the request it stands.
            limit: most bytes.

        Raises:
            ApiError: outside of the folder, absent, no file or too large.
        """
        parts = self._inside(url, place)
        try:
            descriptor = self._opened(parts)
        except (OSError, ValueError):
            raise _refused(place, "There is no such file in the folder that this server reads pictures from.") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _refused(place, "It is not a regular file.")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise _refused(place, f"It is larger than the {limit:,} bytes that this server takes (limits.picture_mb).")
        return data

    def _inside(self, url: str, place: str) -> tuple[str, ...]:
        """The parts of a path below the root, links followed; the same words whether what lies outside exists."""
        outside = _refused(place, "It is not in the folder that this server reads pictures from.")
        split = urlsplit(url)
        if split.netloc not in ("", "localhost"):
            raise outside
        try:
            target = (self.root / unquote(split.path, errors="strict")).resolve()
            parts = target.relative_to(self.root).parts
        except (ValueError, OSError, RuntimeError):  # not below it, a NUL, a loop of links, no UTF-8
            raise outside from None
        if not parts:
            raise _refused(place, "It is a folder.")
        return parts

    def _opened(self, parts: tuple[str, ...]) -> int:
        """Opens the file step by step from the root: what became a link since the path was resolved is not followed."""
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for index, part in enumerate(parts):
            kind = os.O_NONBLOCK if index == len(parts) - 1 else os.O_DIRECTORY  # a pipe must not block
            try:
                inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=here)
            finally:
                os.close(here)
            here = inner
        return here


def _refused(place: str, why: str) -> ApiError:
    return ApiError(400, f"The picture at '{place}' cannot be read: {why}", "invalid_image_url", place)
