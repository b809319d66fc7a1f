"""Parquet files, Arrow files, and folders that `datasets` wrote with `save_to_disk`.

Rows are read a few at a time with the columns that are rows' (see `conversation`); pictures' bytes stay in the file
until they are asked for. A cell with a path and no bytes is a picture file beside the table (or below `--images`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.manifest import is_inside
from stages.artifacts.plain_json import parse_json
from stages.workshop.corpus.picture import PictureInTable
from stages.workshop.corpus.readers.conversation import PICTURE_KEYS, TEXT_KEYS, read_conversation
from stages.workshop.corpus.readers.messages import FileFinder
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Place, Row
from stages.workshop.corpus.tables import is_parquet, map_arrow

_AT_ONCE = 32
_WHY = "Its rows cannot be read."


@dataclass(frozen=True)
class TableSource(RowSource):
    """Rows of tables.

    Attributes:
        rows: how many there are in all; a file's footer says so.
    """

    rows: int | None = None

    @property
    def count(self) -> int | None:
        return self.rows

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        import pyarrow as pa

        find = FileFinder(self.root)
        number = 0
        try:
            for batch in batches_of(shard, _columns):
                texts = batch.select([name for name in batch.schema.names if name not in PICTURE_KEYS]).to_pylist()
                for index, item in enumerate(texts):
                    place = Place(shard, number + index)
                    yield read_conversation(item | self._pictures(batch, index, place), place, find)
                number += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{shard} cannot be read: {error}.", _WHY, "Get the file again.") from error

    def _pictures(self, batch: Any, index: int, place: Place) -> dict[str, list[Any]]:
        """The row's pictures by column: those in cells found, those elsewhere named."""
        return {
            column: [
                self._cell(scalar, place, column, item)
                for item, scalar in enumerate(scalars_of(batch.column(column)[index]))
            ]
            for column in PICTURE_KEYS
            if column in batch.schema.names and batch.column(column)[index].is_valid
        }

    def _cell(self, scalar: Any, place: Place, column: str, item: int) -> Any:
        import pyarrow as pa

        data = scalar.get("bytes") if isinstance(scalar, pa.StructScalar) and "bytes" in scalar else scalar
        binary = pa.types.is_binary(data.type) or pa.types.is_large_binary(data.type)
        if not (binary and data.is_valid):
            return scalar.as_py()
        folder = self.folder
        return PictureInTable(folder, place.file.relative_to(folder).as_posix(), column, place.number, item)


def scalars_of(scalar: Any) -> list[Any]:
    """The pictures of a cell."""
    import pyarrow as pa

    if isinstance(scalar, pa.ListScalar | pa.LargeListScalar):
        return list(scalar.values)
    return [scalar]


def batches_of(shard: Path, columns: Callable[[Path, Any], list[str]]) -> Iterator[Any]:
    """Record batches of a few rows.

    Args:
        shard: a parquet or Arrow file.
        columns: which of them, of a file with an Arrow schema; may refuse it.

    Raises:
        OSError, pyarrow.ArrowException: the file cannot be read.
    """
    import pyarrow.parquet as pq

    if is_parquet(shard):
        with pq.ParquetFile(shard) as file:
            wanted = columns(shard, file.schema_arrow)
            # One group after the other: over several, iter_batches reads ahead without a bound.
            for group in range(file.metadata.num_row_groups):
                yield from file.iter_batches(_AT_ONCE, row_groups=[group], columns=wanted)
    else:
        table = map_arrow(shard)
        yield from table.select(columns(shard, table.schema)).to_batches(_AT_ONCE)


def _columns(shard: Path, schema: Any) -> list[str]:
    """Raises: DataError: no column holds text."""
    names = schema.names
    if not set(names) & set(TEXT_KEYS):
        raise DataError(
            f"{shard} has the columns {', '.join(names)}.",
            "A row's text is in none of them.",
            f"Name the column {' or '.join(TEXT_KEYS)}: a list of turns.",
        )
    return [name for name in names if name in ("id", "task", *TEXT_KEYS, *PICTURE_KEYS)]


def saved_shards(path: Path, split: str) -> tuple[Path, tuple[Path, ...]]:
    """The folder and the Arrow files of a set that `datasets` saved: of a split, where it has several.

    Raises:
        DataError: there is no such split, or the folder is not whole.
    """
    splits = saved_splits(path)
    if splits and split not in splits:
        raise DataError(f"{path} has no split {split!r}.", _WHY, f"Its splits: {', '.join(splits)}.")
    path = path / split if splits else path
    try:
        names = [entry["filename"] for entry in parse_json((path / "state.json").read_bytes())["_data_files"]]
        outside = [name for name in names if not is_inside(name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a whole set of datasets: {error}.", _WHY, "Save it again with save_to_disk."
        ) from error
    if outside:
        raise DataError(f"{path} names the file {outside[0]!r}, which lies outside it.", _WHY, "Do not use this set.")
    return path, tuple(path / name for name in names)


def saved_splits(path: Path) -> tuple[str, ...]:
    """The splits of a set that `datasets` saved; none where it is a single one.

    Raises:
        DataError: their list is broken.
    """
    listed = path / "dataset_dict.json"
    if not listed.is_file():
        return ()
    try:
        splits = parse_json(listed.read_bytes())["splits"]
        if isinstance(splits, list) and all(isinstance(name, str) and is_inside(name) for name in splits):
            return tuple(splits)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{listed} is no list of splits.", _WHY, "Save it again with save_to_disk.")


def count_rows(shards: Sequence[Path]) -> int:
    """Rows of all shards, from their footers.

    Raises:
        DataError: a shard cannot be read.
    """
    return sum(_count(shard) for shard in shards)


def _count(shard: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if is_parquet(shard):
            return int(pq.read_metadata(shard).num_rows)
        return int(map_arrow(shard).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{shard} cannot be read: {error}.", _WHY, "Get the file again.") from error
