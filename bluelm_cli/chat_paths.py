"""Paths of pictures as people type, paste or drop them: plain, quoted, escaped, as file URLs, several at once."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stages.artifacts.errors import UsageError

# How a line begins that may be a dropped or pasted path rather than a question.
_PATH_STARTS = ("/", "~", "./", "../", "'", '"', "file:")
# Inside a question only what is plainly a picture is taken for one.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_REMOTE = re.compile(r"(https?|ftp|data):\S+", re.IGNORECASE)
_HERE = ("", "localhost")
# Pieces of a line with quotes and escapes as a shell has them, kept as written.
_PIECE = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")


def picture_path(words: str) -> Path:
    """A path as people type, paste or drop it: plain, quoted or with escaped spaces, `~` for the home folder, file URL.

    Raises:
        UsageError: a URL of another machine, or of no file.
    """
    if (found := _from_url(words)) is not None:
        return found
    plain = _at_home(words)
    if is_file(plain):
        return plain
    try:
        parts = shlex.split(words)
    except ValueError:
        return plain
    if len(parts) != 1:
        return plain
    return _from_url(parts[0]) or _at_home(parts[0])


def dropped(line: str) -> list[Path]:
    """The files that a line names and nothing else; none where it says something else.

    Raises:
        UsageError: a URL of another machine.
    """
    if _REMOTE.fullmatch(line):
        picture_path(line)
    if not line.startswith(_PATH_STARTS):
        return []
    one = picture_path(line)
    if is_file(one):
        return [one]
    paths = [picture_path(piece) for piece in _PIECE.findall(line)]
    return paths if paths and all(is_file(path) for path in paths) else []


def split_question(line: str) -> tuple[list[Path], str]:
    """Pictures dropped before or behind a question, and the question.

    Only files that are there and have a picture's suffix are taken: "what is in /etc/hosts?" stays a question.
    """
    pieces = list(_PIECE.finditer(line))
    first, last = 0, len(pieces)
    while first < last and _picture(pieces[first].group()) is not None:
        first += 1
    while last > first and _picture(pieces[last - 1].group()) is not None:
        last -= 1
    taken = [_picture(piece.group()) for piece in (*pieces[:first], *pieces[last:])]
    if not taken or first == last:
        return [], line
    return [path for path in taken if path is not None], line[pieces[first].start() : pieces[last - 1].end()]


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too for what can be no path, such as a long question."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _picture(piece: str) -> Path | None:
    if not piece.startswith(_PATH_STARTS):
        return None
    try:
        path = picture_path(piece)
    except UsageError:
        return None
    return path if path.suffix.lower() in SUFFIXES and is_file(path) else None


def _from_url(words: str) -> Path | None:
    """The file of a URL of this machine; None where it is no URL.

    Raises:
        UsageError: it leads elsewhere.
    """
    scheme, colon, _ = words.partition(":")
    if not colon or scheme.lower() not in ("file", "http", "https", "ftp", "data"):
        return None
    if scheme.lower() != "file":
        raise UsageError(
            f"{words[:80]} is not fetched.",
            "A conversation reads files of this machine alone.",
            "Download the picture, or paste it from the clipboard: /paste",
        )
    try:
        parts = urlsplit(words)
    except ValueError:
        return None
    if parts.netloc.lower() not in (*_HERE, socket.gethostname().lower()):
        raise UsageError(
            f"{words[:80]} lies on {parts.netloc}.",
            "A conversation reads files of this machine alone.",
            "Copy the picture here first.",
        )
    return Path(unquote(parts.path, errors="surrogateescape"))


def _at_home(words: str) -> Path:
    try:
        return Path(words).expanduser()
    except RuntimeError:  # ~nobody
        return Path(words)
