"""Items of large JSON files, one after the other: a JSON array, or JSON lines, in memory bounded by one item.

Source of the approach: `json.JSONDecoder.raw_decode` of the standard library, fed chunk by chunk.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from stages.artifacts.errors import DataError

# A row of data is text and names: what is longer than this is no row.
MAX_ITEM = 64 * 2**20
_CHUNK = 1 << 16
# Longest JSON token that an error points behind or into while its end is not yet read: `-Infinity`, `\\ud83d\\ude00`.
_TOKEN = 16
# Longer integers become their text: Python refuses to convert thousands of digits.
_LONGEST_INTEGER = 300
_WHY = "It holds the rows to work with."

Layout = Literal["array", "lines"]


@dataclass(frozen=True)
class BrokenItem:
    """A line that is no JSON, and why."""

    what: str


def json_layout(path: Path) -> Layout:
    """Whether a file is one JSON array or JSON lines, by how it begins.

    Raises:
        DataError: it cannot be read, is empty, or is neither.
    """
    with _open(path) as stream:
        head = stream.read(_CHUNK)
    text = codecs.decode(head, "utf-8-sig", "ignore").lstrip(" \t\r\n")
    if text.startswith("["):
        return "array"
    if not text.startswith("{"):
        if b"\xef\xbf\xbd" not in head and _is_utf16(head):
            raise DataError(f"{path} is not UTF-8.", _WHY, "Save it as UTF-8.")
        found = "is empty" if not text else f"begins with {text[:20]!r}, neither a list of rows nor a row"
        raise DataError(f"{path} {found}.", _WHY, "Rows are one JSON list, or JSON lines: an object on each line.")
    try:
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return "lines"
    if "\n" in text[:end]:
        raise DataError(
            f"{path} holds one object over several lines, not a list.",
            _WHY,
            "Rows are one JSON list, or JSON lines: an object on each line.",
        )
    return "lines"


def _is_utf16(head: bytes) -> bool:
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def json_items(path: Path, layout: Layout | None = None) -> Iterator[tuple[int, Any | BrokenItem]]:
    """All items with their numbers: places in an array from 0, lines from 1; empty lines are passed over.

    Args:
        path: the file.
        layout: what it is; looked at where None.

    Raises:
        DataError: the file cannot be read, or an array is broken (behind the break no row can be told from another).
    """
    layout = layout or json_layout(path)
    yield from _array(path) if layout == "array" else _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, Any | BrokenItem]]:
    with _open(path) as stream:
        number = 0
        while line := stream.readline(MAX_ITEM + 1):
            number += 1
            if len(line) > MAX_ITEM and not line.endswith(b"\n"):
                while not line.endswith(b"\n") and (line := stream.readline(_CHUNK)):
                    pass
                yield number, BrokenItem(f"it is longer than {MAX_ITEM >> 20} MiB")
            elif line.strip():
                yield number, json_value(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)


def json_value(line: bytes) -> Any | BrokenItem:
    """One value of UTF-8 JSON, or why it is none."""
    try:
        text = line.decode("utf-8").strip()
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
        return BrokenItem(f"it is not JSON: more follows after column {end}")
    except UnicodeDecodeError as error:
        return BrokenItem(f"it is not UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return BrokenItem(f"it is not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return BrokenItem("it is nested too deeply")


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    with _open(path) as stream:
        window = _Window(path, stream)
        window.take("[")
        number = 0
        if window.peek() == "]":
            window.take("]")
        else:
            while True:
                yield number, window.item()
                number += 1
                if window.peek() == "]":
                    window.take("]")
                    break
                window.take(",")
        if window.peek():
            window.fail("more follows after the list")


class _Window:
    """The part of a text file around the place that is read: what lies before is forgotten."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False
        self._read_bytes = 0
        self._line, self._column = 1, 1

    def peek(self) -> str:
        """The next character that is not white; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def take(self, character: str) -> None:
        """Passes one character."""
        if self.peek() != character:
            self.fail(f"Expecting {character!r}")
        self._at += 1

    def item(self) -> Any:
        """The next value."""
        self.peek()
        step = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                passed = end - self._at
                # A number near the end of the window may go on behind it: `0.` and `1e-` are read as 0 and 1.
                if len(self._text) - end >= _TOKEN or not self._more(step):
                    self._at += passed
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _TOKEN
                behind = error.pos - self._at
                if not cut or not self._more(step):
                    self._at += behind
                    self.fail(error.msg)
            except RecursionError:
                self.fail("nested too deeply")
            if len(self._text) - self._at > MAX_ITEM:
                self.fail(f"a row longer than {MAX_ITEM >> 20} MiB")
            step = max(_CHUNK, len(self._text) - self._at)

    def fail(self, what: str) -> NoReturn:
        """Raises with the line and column of the place."""
        self._forget()
        raise DataError(
            f"{self._path} is not JSON: {what} at line {self._line}, column {self._column}.", _WHY, "Mend that place."
        )

    def _forget(self) -> None:
        passed = self._text[: self._at]
        lines = passed.count("\n")
        self._line += lines
        self._column = len(passed) - passed.rfind("\n") if lines else self._column + len(passed)
        self._text, self._at = self._text[self._at :], 0

    def _more(self, size: int) -> bool:
        """Reads on; False at the end of the file."""
        if self._ended:
            return False
        self._forget()
        data = self._stream.read(size)
        self._ended = not data
        try:
            self._text += self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            pending = len(error.object) - len(data)
            where = self._read_bytes - pending + error.start
            raise DataError(
                f"{self._path} is not UTF-8: {error.reason} at byte {where}.", _WHY, "Save it as UTF-8."
            ) from error
        self._read_bytes += len(data)
        return not self._ended


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", _WHY, "Check the path.") from error


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INTEGER else text


_DECODER = json.JSONDecoder(parse_int=_integer)
