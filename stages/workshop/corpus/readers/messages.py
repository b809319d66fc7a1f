"""Messages in JSON or JSON lines: transformers, OpenAI, ms-swift and LLaMA-Factory write them (see `conversation`).

Names of pictures are relative to the file's folder, or to the one that `--images` names; an absolute path must lie
inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.json_items import BrokenItem, json_items, json_layout
from stages.artifacts.llava_rows import Problem
from stages.artifacts.manifest import is_inside
from stages.workshop.corpus.picture import Picture, PictureFile
from stages.workshop.corpus.readers.conversation import checked_name, read_conversation
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Place, Row


@dataclass(frozen=True)
class MessagesSource(RowSource):
    """Rows of messages."""

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        layout = json_layout(shard)
        find = FileFinder(self.root)
        for number, item in json_items(shard, layout):
            place = Place(shard, number, "row" if layout == "array" else "line")
            if isinstance(item, BrokenItem):
                yield BadRow(place, (Problem("json", item.what),))
            else:
                yield read_conversation(item, place, find)


@dataclass(frozen=True)
class FileFinder:
    """Finds picture files by name.

    Attributes:
        root: what names are relative to, and never lead out of.
    """

    root: Path

    def __call__(self, given: Any) -> Picture | Problem:
        name = checked_name(given)
        if isinstance(name, Problem):
            return name
        inside = self._inside(name)
        if inside is None:
            return Problem("outside", f"the picture {name!r} lies outside the folder of pictures")
        return PictureFile(self.root, inside)

    def _inside(self, name: str) -> str | None:
        """The name relative to the root, or None."""
        path = Path(name)
        if path.is_absolute():
            if not path.is_relative_to(self.root.absolute()):
                return None
            name = path.relative_to(self.root.absolute()).as_posix()
        return name if is_inside(name) else None
