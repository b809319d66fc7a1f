"""Conversation data in LLaVA's JSON, written: one list, a row on each line. `readers.llava` reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import Row

_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}

Refer = Callable[[Picture], Any]


def by_name(picture: Picture) -> str:
    """A picture as a file names it whose pictures lie beside it."""
    return picture.name


def as_llava(row: Row, refer: Refer = by_name) -> dict[str, Any]:
    """A row as it stands in a file.

    Args:
        row: the row.
        refer: how the file names a picture: by its name, or by root and name (`PictureRoots.refer`).
    """
    content: dict[str, Any] = {"id": row.name}
    if row.pictures:
        pictures = [refer(picture) for picture in row.pictures]
        content["image"] = pictures[0] if len(pictures) == 1 else pictures
    if row.tasks:
        content["task"] = row.tasks[0] if len(row.tasks) == 1 else list(row.tasks)
    if row.repeat > 1:
        content["repeat"] = row.repeat
    content["conversations"] = [{"from": _SPEAKERS[turn.role], "value": turn.text} for turn in row.turns]
    return content


class LlavaWriter:
    """Writes rows one at a time, in a `with` block; the file is one JSON list when the block ends.

    Args:
        path: the file.
        refer: how the file names a picture.
    """

    def __init__(self, path: Path, refer: Refer = by_name) -> None:
        self._stream = path.open("w", encoding="utf-8")
        self._refer = refer
        self.rows = 0

    def write(self, row: Row) -> None:
        """Appends a row."""
        self.write_line(json.dumps(as_llava(row, self._refer), ensure_ascii=False))

    def write_line(self, line: str) -> None:
        """Appends a row that is JSON already."""
        self._stream.write(("[\n" if self.rows == 0 else ",\n") + line)
        self.rows += 1

    def __enter__(self) -> LlavaWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            self._stream.write("\n]\n" if self.rows else "[]\n")


def write_llava(path: Path, rows: Iterable[Row], refer: Refer = by_name) -> None:
    """Writes rows as LLaVA JSON, one to a line."""
    with LlavaWriter(path, refer) as writer:
        for row in rows:
            writer.write(row)
