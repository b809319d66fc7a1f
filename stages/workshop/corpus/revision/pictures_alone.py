"""Pictures without any conversation, as rows: what captions are made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.errors import DataError
from stages.device.imaging.sources import PICTURE_SUFFIXES, list_pictures
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.readers.opening import detect, open_rows
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Place, Row

PICTURES = "pictures"


@dataclass(frozen=True)
class PictureSource(RowSource):
    """A row without turns for each picture of a folder, named as the picture is."""

    names: tuple[str, ...]

    @property
    def count(self) -> int | None:
        return len(self.names)

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        for number, name in enumerate(self.names):
            yield Row(name, (), (PictureFile(self.root, name),), place=Place(shard, number, "picture"))


def open_input(path: Path, format: str | None, images: Path | None, split: str) -> RowSource:
    """What `open_rows` opens, and pictures alone: a picture, or a folder of pictures and no data.

    Raises:
        BluelmError: as `open_rows`; or a folder that holds neither.
    """
    if format == PICTURES or (format is None and _is_pictures(path)):
        names = tuple(picture.name for picture in list_pictures([path]))
        return PictureSource(path, PICTURES, (path,), path if path.is_dir() else path.parent, names)
    return open_rows(path, format, images, split)


def _is_pictures(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() in PICTURE_SUFFIXES
    try:
        detect(path)
    except DataError:
        return True
    return False
