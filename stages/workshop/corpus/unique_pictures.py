"""The pictures of conversation data and of folders, each place once, in the order in which the rows name them.

Memory grows by a hundred bytes a picture: enough for millions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.events import Notice, Progress
from stages.artifacts.manifest import Parent
from stages.device.imaging.reading import LISTED_PROBLEMS, make_in_order
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.readers.opening import TRAIN, splits_of
from stages.workshop.corpus.readers.source import RowSource, parent_of_rows
from stages.workshop.corpus.revision.pictures_alone import PictureSource, open_input
from stages.workshop.corpus.row import BadRow

_PLACE_BYTES = 16
_PROGRESS_EVERY = 200


@dataclass(frozen=True)
class PictureCount:
    """How many pictures there are, and their tiles."""

    pictures: int
    tiles: int
    bad_rows: int


@dataclass(frozen=True)
class PictureInputs:
    """Inputs whose pictures are wanted.

    Attributes:
        sources: rows of all inputs, a corpus with all its splits.
        parents: what an artifact made of them records.
    """

    sources: tuple[RowSource, ...]
    parents: tuple[Parent, ...]

    @classmethod
    def open(cls, paths: Sequence[Path], format: str | None = None, images: Path | None = None) -> PictureInputs:
        """Opens pictures, folders of pictures, and anything that `open_rows` reads.

        Args:
            paths: the inputs.
            format: of conversation data; seen in its content where None.
            images: where pictures lie that the data names, if not beside it.

        Raises:
            BluelmError: inputs that cannot be used, all together.
        """
        sources: list[RowSource] = []
        parents: list[Parent] = []
        problems: list[BluelmError] = []
        for path in paths:
            try:
                opened = _open(path, format, images)
                parents.append(_parent_of(opened[0]))
                sources += opened
            except BluelmError as error:
                problems.append(error)
        raise_all(problems)
        return cls(tuple(sources), tuple(parents))

    def __iter__(self) -> Iterator[Picture | BadRow]:
        """Every picture once, however many rows name it; rows that cannot be used as they come."""
        seen: set[bytes] = set()
        for source in self.sources:
            for row in source:
                if isinstance(row, BadRow):
                    yield row
                    continue
                for picture in row.pictures:
                    place = hashlib.blake2b(repr(picture).encode("utf-8", "surrogateescape"), digest_size=_PLACE_BYTES)
                    if place.digest() not in seen:
                        seen.add(place.digest())
                        yield picture

    def pictures(self) -> Iterator[Picture]:
        """As iterating, without the rows that cannot be used."""
        for item in self:
            if not isinstance(item, BadRow):
                yield item

    def count(self, tiling: TilingSpec, threads: int | None) -> Generator[Progress | Notice, None, PictureCount]:
        """Reads the header of every picture.

        Raises:
            BluelmError: pictures that are missing or no pictures, together; or there is none at all.
        """
        pictures = tiles = wrong = 0
        bad: list[BadRow] = []
        problems: list[BluelmError] = []

        def named() -> Iterator[Picture]:
            for item in self:
                if isinstance(item, BadRow):
                    bad.append(item)
                else:
                    yield item

        def measure(picture: Picture) -> int:
            return plan_tiling(picture.size(), tiling).tiles

        for found in make_in_order(measure, named(), threads):
            if isinstance(found, ImageError):
                wrong += 1
                problems += [found] if wrong <= LISTED_PROBLEMS else []
                continue
            pictures, tiles = pictures + 1, tiles + found
            if pictures % _PROGRESS_EVERY == 0:
                yield Progress("measuring pictures", pictures, None, "pictures")
        if wrong > LISTED_PROBLEMS:
            more = f"{wrong - LISTED_PROBLEMS} more pictures cannot be read."
            problems.append(ImageError(more, "They are not listed here.", "Mend the listed ones first."))
        raise_all(problems)
        if bad:
            first = bad[0].errors()[0].what
            text = f"{len(bad)} rows cannot be used; their pictures are left out. The first: {first}"
            yield Notice(text, "warning")
        if not pictures:
            places = ", ".join(str(source.path) for source in self.sources)
            raise DataError(f"{places}: no picture.", "There is nothing to encode.", "Name data that has pictures.")
        return PictureCount(pictures, tiles, len(bad))


def _open(path: Path, format: str | None, images: Path | None) -> list[RowSource]:
    first = open_input(path, format, images, TRAIN)
    if isinstance(first, PictureSource):
        return [first]
    return [open_input(path, format, images, split) for split in splits_of(path, format)]


def _parent_of(source: RowSource) -> Parent:
    """Of a folder of pictures by their names and sizes: reading all of them would take as long as encoding some.

    Raises:
        ImageError: a picture named by itself is not there.
        BluelmError: as `parent_of_rows`.
    """
    if not isinstance(source, PictureSource):
        return parent_of_rows(source)
    try:
        listed = [[name, (source.root / name).stat().st_size] for name in source.names]
    except OSError as error:
        what = f"{error.filename} cannot be read: {error.strerror}."
        raise ImageError(what, "It is one of the pictures to encode.", "Check the path.") from error
    return Parent(path=source.path.as_posix(), digest=digest_json(listed))
