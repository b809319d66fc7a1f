"""The pictures of several inputs as a corpus job takes them: each place once, countable, light enough to send around.

A digest says when the inputs are others: of picture files by all their bytes, of shards as `parent_of_rows` does it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.manifest import MANIFEST_FILE, Parent, check_name, parent_of
from stages.device.imaging.reading import LISTED_PROBLEMS, make_in_order
from stages.device.imaging.sources import list_pictures
from stages.workshop.corpus.picture import Picture, PictureBytes, PictureInTable, PictureInTar
from stages.workshop.corpus.picture_streams import Unusable, open_pictures
from stages.workshop.corpus.readers.source import digest_shard

_PLACE_BYTES = 16
_SHARDS = (".tar", ".parquet", ".arrow")
_WHY = "It has no picture to tile."
_FIX = "Mend it, or leave out what cannot be used: --set skip_broken=true"
_CELL = re.compile(r"(?P<shard>.+)\[(?P<row>\d+)\]\.(?P<column>[^\[\]]+)(?:\[(?P<item>\d+)\])?")


@dataclass(frozen=True)
class ListedPictures:
    """The pictures of the inputs. Iterating reads the inputs again and gives the same pictures in the same order.

    Attributes:
        inputs: what was given.
        count: how many pictures there are.
        unusable: rows and members that name no picture, which are left out.
    """

    inputs: tuple[Path, ...]
    count: int
    unusable: int = 0

    def __iter__(self) -> Iterator[Picture]:
        seen: set[bytes] = set()
        for path in self.inputs:
            for picture in open_pictures(path):
                if not isinstance(picture, Unusable):
                    placed = _placed(picture)
                    place = hashlib.blake2b(_place(placed), digest_size=_PLACE_BYTES).digest()
                    if place not in seen:
                        seen.add(place)
                        yield placed

    def parents(self, threads: int | None = None) -> tuple[Parent, ...]:
        """The digest of each input. A picture file that cannot be read is told when it is cut."""
        return tuple(_parent(path, threads) for path in self.inputs)


def list_corpus(inputs: Sequence[Path], leave_out: bool = False) -> ListedPictures:
    """Counts the pictures of inputs; no picture is opened.

    Args:
        inputs: whatever `open_pictures` opens.
        leave_out: rows and members that name no picture, instead of refusing them.

    Raises:
        BluelmError: inputs that cannot be used, and what names no picture, together (the first of them by name).
    """
    problems: list[BluelmError] = []
    wrong = 0
    for path in inputs:
        try:
            for picture in open_pictures(path):
                if isinstance(picture, Unusable):
                    wrong += 1
                    if not leave_out and wrong <= LISTED_PROBLEMS:
                        problems.append(DataError(f"{picture.what}.", _WHY, _FIX))
        except BluelmError as error:
            problems.append(error)
    if wrong > LISTED_PROBLEMS and not leave_out:
        problems.append(DataError(f"{wrong - LISTED_PROBLEMS} more problems like these.", _WHY, _FIX))
    raise_all(problems)
    count = sum(1 for _ in ListedPictures(tuple(inputs), 0))
    if not count:
        names = ", ".join(str(path) for path in inputs)
        raise ImageError(f"{names}: no picture.", "There is nothing to tile.", "Name data that has pictures.")
    return ListedPictures(tuple(inputs), count, wrong)


def wants_shards(inputs: Sequence[Path], most: int) -> bool:
    """Whether inputs are a corpus: in shards themselves, of conversations that `list_pictures` does not read, or large.

    Inputs that cannot be used at all are none: whoever reads them tells why.
    """
    if any(path.suffix.lower() in _SHARDS for path in inputs):
        return True
    try:
        return len(list_pictures(inputs)) > most
    except BluelmError:
        pass
    try:
        return any(not isinstance(found, Unusable) for path in inputs for found in islice(open_pictures(path), 1))
    except BluelmError:
        return False


def _placed(picture: Picture) -> Picture:
    """A picture by its place: its bytes, where a table was read with them, are not sent around."""
    if not isinstance(picture, PictureBytes):
        return picture
    cell = _CELL.fullmatch(picture.name)
    if cell is None:
        return picture
    return PictureInTable(picture.root, cell["shard"], cell["column"], int(cell["row"]), int(cell["item"] or 0))


def _place(picture: Picture) -> bytes:
    return repr(picture).encode("utf-8", "surrogateescape")


def _parent(path: Path, threads: int | None) -> Parent:
    """An artifact's own digest; elsewhere that of the picture files it names and of the shards that hold the others."""
    check_name(path)
    if (path / MANIFEST_FILE).is_file():
        return parent_of(path)
    whole = hashlib.sha256()
    shards: set[Path] = set()

    def digested(picture: Picture) -> tuple[str, str]:
        try:
            return picture.name, hashlib.sha256(picture.read()).hexdigest()
        except ImageError as error:
            return picture.name, error.what

    def files() -> Iterator[Picture]:
        for picture in ListedPictures((path,), 0):
            if isinstance(picture, PictureInTar | PictureInTable):
                shards.add(picture.root / picture.shard)
            else:
                yield picture

    for found in make_in_order(digested, files(), threads):
        if not isinstance(found, ImageError):
            whole.update("\0".join(found).encode("utf-8", "surrogateescape") + b"\n")
    for shard in sorted(shards):
        whole.update(f"{shard.name}\0{digest_shard(shard)}\n".encode("utf-8", "surrogateescape"))
    return Parent(path=path.as_posix(), digest=whole.hexdigest())
