"""Cells of parquet and Arrow files, one at a time: a file is mapped or read by row group, never whole.

pyarrow comes with `datasets` and is loaded when the first table is read.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

# Row groups of pictures are large; neighbours in a shuffled order rarely share one.
_GROUPS_KEPT = 2
_FILES_KEPT = 16


def cell_bytes(path: Path, column: str, row: int, item: int) -> bytes | None:
    """The encoded picture of a cell, or None where there is none.

    Raises:
        OSError: the file cannot be read, or is no table.
    """
    return picture_bytes(_cell(path, column, row), item)


def picture_bytes(cell: Any, item: int) -> bytes | None:
    """The bytes of a picture in a cell's value: `{bytes, path}`, bytes, or a list of them."""
    if isinstance(cell, list):
        cell = cell[item] if item < len(cell) else None
    elif item:
        return None
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if isinstance(data, bytes) else None


def _cell(path: Path, column: str, row: int) -> Any:
    import pyarrow as pa

    stat = path.stat()
    identity = (str(path), stat.st_size, stat.st_mtime_ns)
    try:
        table, first = _table(path, identity, column, row)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error
    if table is None or column not in table.column_names or row - first >= table.num_rows:
        return None
    return table.column(column)[row - first].as_py()


def _table(path: Path, identity: tuple[str, int, int], column: str, row: int) -> tuple[Any, int]:
    """A table that holds the row, and the number of its first row; no table where the file ends before it."""
    if not is_parquet(path):
        return _arrow(identity), 0
    starts, columns = _groups(identity)
    group = bisect_right(starts, row) - 1
    if column not in columns or group >= len(starts) - 1:
        return None, 0
    return _row_group(identity, group, column), starts[group]


@functools.lru_cache(_FILES_KEPT)
def _arrow(identity: tuple[str, int, int]) -> Any:
    return map_arrow(Path(identity[0]))


@functools.lru_cache(_FILES_KEPT)
def _groups(identity: tuple[str, int, int]) -> tuple[list[int], list[str]]:
    """First rows of the row groups with the end of the last behind them, and the columns."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(identity[0]) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        return [0, *accumulate(sizes)], file.schema_arrow.names


@functools.lru_cache(_GROUPS_KEPT)
def _row_group(identity: tuple[str, int, int], group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(identity[0], memory_map=True) as file:
        return file.read_row_group(group, columns=[column])


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def map_arrow(path: Path) -> Any:
    """An Arrow file (as `datasets` writes it: a stream; or the file format) as a table over its mapped memory.

    Raises:
        pyarrow.ArrowException: it is neither.
    """
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source).read_all()
