"""The tiles of each picture in batches: 9 tiles in batches of 4 are 4 + 4 + 1, no tile is wasted.

Batches never run across pictures. How many tiles share a batch can move a result by a rounding step where activations
are quantized, and the features of a picture must depend on the picture and the model alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """Some tiles of one picture, uint8 [B, 3, S, S]; `number` counts batches of all pictures, `last` ends a picture."""

    number: int
    tiles: NDArray[np.uint8]
    last: bool


def batches(pictures: Iterable[NDArray[np.uint8]], size: int) -> Iterator[Batch]:
    """Cuts the tiles of one picture after the other, [tiles, 3, S, S], into batches of at most `size`."""
    number = 0
    for tiles in pictures:
        for start in range(0, len(tiles), size):
            yield Batch(number, tiles[start : start + size], start + size >= len(tiles))
            number += 1
