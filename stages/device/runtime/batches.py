"""Tiles of a stream of pictures packed into batches, and their results sorted back to the pictures.

    pictures  AAAAAAAAA BBBBB C        batch 4:  AAAA AAAA ABBB BBC

Batches run across picture boundaries, so that only the very last one can be smaller than the others (9 tiles: 4+4+1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Item = TypeVar("Item")


def pack(pictures: Iterable[Array], batch: int, counts: deque[int]) -> Iterator[Array]:
    """Cuts the tiles of consecutive pictures into batches.

    Args:
        pictures: tiles of one picture each, [tiles, ...]; read only as far as needed.
        batch: tiles per batch.
        counts: gets the tile count of every picture before the batch that holds its last tile.

    Yields:
        [batch, ...], the last one shorter where the tiles do not divide.
    """
    waiting: list[Array] = []
    filled = 0
    for tiles in pictures:
        counts.append(len(tiles))
        start = 0
        while start < len(tiles):
            piece = tiles[start : start + batch - filled]
            waiting.append(piece)
            filled, start = filled + len(piece), start + len(piece)
            if filled == batch:
                yield _joined(waiting)
                waiting, filled = [], 0
    if waiting:
        yield _joined(waiting)


def unpack(results: Iterable[tuple[Array, Item]], counts: deque[int]) -> Iterator[tuple[Array, list[Item]]]:
    """Sorts batch results back to pictures.

    Args:
        results: for each batch in order, its rows [tiles, ...] and something to remember about it.
        counts: see `pack`; emptied from the left as pictures are completed.

    Yields:
        Rows of one picture [tiles, ...] and what was remembered about the batches it was in.
    """
    rows: list[Array] = []
    items: list[Item] = []
    have = 0
    for result, item in results:
        rows.append(result)
        items.append(item)
        have += len(result)
        while counts and have >= counts[0]:
            need = counts.popleft()
            joined = _joined(rows)
            yield joined[:need], items
            rest = joined[need:]
            have = len(rest)
            rows, items = ([rest], [item]) if have else ([], [])


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
