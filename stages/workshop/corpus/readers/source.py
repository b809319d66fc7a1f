"""What every reader gives: rows one at a time, in shards, so that ranks can share them and memory stays bounded."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.digest import digest_file, digest_json
from stages.artifacts.errors import DataError, raise_all
from stages.artifacts.manifest import MANIFEST_FILE, Parent, check_name, parent_of
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import BadRow, Row, printable

# A broken file may have a problem in every row; so many are told one by one.
NAMED = 20
_WHOLE, _END = 2**28, 2**22


@dataclass(frozen=True)
class RowSource(ABC):
    """Rows of an input. Iterating reads them lazily; iterating again reads them again. It can be sent to processes.

    Attributes:
        path: the input.
        format: a name of `opening.FORMATS`.
        shards: the files that hold the rows, in order.
        root: the folder that names of picture files are relative to.
    """

    path: Path
    format: str
    shards: tuple[Path, ...]
    root: Path

    @property
    def folder(self) -> Path:
        """What names of shards are relative to."""
        return self.path.parent if self.path in self.shards else self.path

    @property
    def places(self) -> tuple[Path, ...]:
        """The files and folders that rows and pictures are read from."""
        return (self.path, self.root)

    @property
    def count(self) -> int | None:
        """How many rows there are, broken ones included, where it costs nothing to know."""
        return None

    @abstractmethod
    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        """The rows of one shard.

        Raises:
            DataError: the shard itself cannot be read; never for a single row.
        """

    def __iter__(self) -> Iterator[Row | BadRow]:
        for shard in self.shards:
            yield from self.read(shard)

    def part(self, rank: int, ranks: int) -> Iterator[Row | BadRow]:
        """The rows of one of several ranks: each row goes to exactly one.

        Whole shards where there are enough of them, so that nothing is read twice; otherwise every `ranks`-th row.
        """
        if len(self.shards) >= ranks:
            for shard in self.shards[rank::ranks]:
                yield from self.read(shard)
        else:
            yield from (row for number, row in enumerate(self) if number % ranks == rank)


def parent_of_rows(source: RowSource) -> Parent:
    """An input's digest: an artifact's own; elsewhere that of its shards.

    Shards of more than 256 MiB are known by their size, beginning and end: to read all of them before every run would
    take as long as to train on some. Pictures beside the shards are not looked at.

    Raises:
        ArtifactError: a broken manifest, or a name that is not UTF-8.
        DataError: a shard cannot be read.
    """
    check_name(source.path)
    if (source.path / MANIFEST_FILE).is_file():
        return parent_of(source.path)
    try:
        shards = [[shard.name, digest_shard(shard)] for shard in source.shards]
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}.", "It is an input.", "Check it."
        ) from error
    return Parent(path=source.path.as_posix(), digest=digest_json(shards))


def digest_shard(shard: Path) -> str:
    """The digest of a file; one of more than 256 MiB is known by its size, beginning and end."""
    size = shard.stat().st_size
    if size <= _WHOLE:
        return digest_file(shard)
    with shard.open("rb") as stream:
        ends = stream.read(_END)
        stream.seek(-_END, os.SEEK_END)
        ends += stream.read(_END)
    return hashlib.sha256(size.to_bytes(8, "little") + ends).hexdigest()


def all_rows(rows: Iterable[Row | BadRow], *, check_pictures: bool = True) -> list[Row]:
    """A whole source in memory, refused where a row cannot be used.

    Args:
        rows: a source.
        check_pictures: also refuse pictures that do not exist.

    Raises:
        DataError: the input cannot be read, or rows cannot be used (all of them together, the first few by name).
    """
    kept: list[Row] = []
    problems: list[DataError] = []
    count = 0
    for row in rows:
        found = row.errors() if isinstance(row, BadRow) else _missing(row) if check_pictures else []
        count += len(found)
        problems += found[: max(0, NAMED - len(problems))]
        if isinstance(row, Row):
            kept.append(row)
    if count > len(problems):
        more = f"{count - len(problems)} more problems like these."
        problems.append(DataError(more, "Those rows cannot be used either.", "Mend them in the same way."))
    raise_all(problems)
    return kept


def _missing(row: Row) -> list[DataError]:
    return [
        DataError(
            f"{row.place} (id {printable(row.name)}): the picture {_where(picture)} does not exist.",
            "The row cannot be learned from or asked.",
            "Get the picture, say where pictures lie with --images, or leave the row out: bluelm data check.",
        )
        for picture in row.pictures
        if not picture.exists()
    ]


def _where(picture: Picture) -> str:
    return printable(str(picture.root / picture.name), None)
