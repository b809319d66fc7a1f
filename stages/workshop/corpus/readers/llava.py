"""LLaVA's JSON and JSON lines, and the files of a corpus, which are the same with pictures in several roots.

What a row is says `stages.artifacts.llava_rows`. Names of pictures are relative to the JSON's folder, or to the one
that `--images` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts.json_items import BrokenItem, json_items, json_layout
from stages.artifacts.llava_rows import PictureReference, Problem, read_llava_row, row_name, split_root
from stages.artifacts.picture_roots import root_of
from stages.workshop.corpus.picture import Picture, PictureFile, PictureInTable, PictureInTar
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Place, Row, Turn


@dataclass(frozen=True)
class LlavaSource(RowSource):
    """Rows of LLaVA files.

    Attributes:
        roots: other folders with pictures by their number (a corpus has them in its index).
        rows: how many rows there are, where the index says so.
    """

    roots: Mapping[int, Path] = field(default_factory=dict)
    rows: int | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        return (*super().places, *self.roots.values())

    @property
    def count(self) -> int | None:
        return self.rows

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        layout = json_layout(shard)
        unit = "row" if layout == "array" else "line"
        for number, item in json_items(shard, layout):
            place = Place(shard, number, unit)
            if isinstance(item, BrokenItem):
                yield BadRow(place, (Problem("json", item.what),))
                continue
            found, problems = read_llava_row(item, number)
            if found is None:
                named = isinstance(item, Mapping) and item.get("id") is not None
                yield BadRow(place, problems, row_name(item, number) if named else None)
                continue
            turns = tuple(Turn(role, text) for role, text in found.turns)
            pictures = tuple(self.picture(reference, shard) for reference in found.pictures)
            yield Row(found.name, turns, pictures, found.tasks, place, found.repeat)

    def picture(self, reference: PictureReference, shard: Path) -> Picture:
        """The picture that a row of a shard refers to.

        Raises:
            DataError: it lies in a folder that the corpus does not know.
        """
        number, name = split_root(reference if isinstance(reference, str) else reference["shard"])
        root = root_of(number, self.root, self.roots, shard)
        if isinstance(reference, str):
            return PictureFile(root, name)
        if "member" in reference:
            return PictureInTar(root, name, reference["member"], reference["offset"], reference["length"])
        return PictureInTable(root, name, reference["column"], reference["row"], reference["item"])
