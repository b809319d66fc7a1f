"""Which rows are kept apart: every picture has a number in 0…1 by its digest, and those below a threshold are held out.

A row is held out where all its pictures are, learned from where none is, and otherwise neither. So no picture is on
both sides, in whichever source it comes again, and the same seed holds out the same pictures of any mixture.
"""

from __future__ import annotations

import hashlib
import heapq
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.workshop.corpus.mixture import Heldout
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import Row

Side = Literal["train", "heldout", "between"]

_SCALE = 2.0**-64
# Rows about one picture stand together: it is read once.
_REMEMBERED = 4096


class PictureNumbers:
    """Numbers of rows' pictures."""

    def __init__(self, seed: int, same: Literal["content", "place"]) -> None:
        self._seed = seed
        self._digest = lru_cache(_REMEMBERED)(_content if same == "content" else _place)

    def of(self, row: Row) -> tuple[float, float]:
        """The lowest and the highest number of a row's pictures; a row of text only has that of its text.

        Raises:
            ImageError: a picture cannot be read.
        """
        if row.pictures:
            numbers = [self._number(self._digest(picture)) for picture in row.pictures]
        else:
            said = "\0".join(turn.text for turn in row.turns)
            numbers = [self._number(said)]
        return min(numbers), max(numbers)

    def _number(self, identity: str) -> float:
        data = f"{self._seed}\0{identity}".encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") * _SCALE


def side(lowest: float, highest: float, threshold: float) -> Side:
    """Where a row belongs."""
    if highest < threshold:
        return "heldout"
    return "train" if lowest >= threshold else "between"


class NumberFile:
    """Numbers of all rows of a source on disk, float64 [rows, 2] (lowest, highest); NaN where a row cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb")

    def append(self, lowest: float, highest: float) -> None:
        """Adds the next row."""
        self._stream.write(np.array((lowest, highest)).tobytes())

    def numbers(self) -> NDArray[np.float64]:
        """All of them, mapped."""
        self._stream.close()
        if not self.path.stat().st_size:
            return np.empty((0, 2))
        return np.memmap(self.path, np.float64, "r").reshape(-1, 2)


def threshold_of(heldout: Heldout, numbers: list[NDArray[np.float64]]) -> float:
    """Below which number a picture is held out.

    Args:
        heldout: how much is.
        numbers: of all sources' rows.
    """
    if heldout.share is not None:
        return heldout.share
    assert heldout.rows is not None
    # One more than wanted: below the number of that one there are at most so many.
    lowest: list[float] = []
    for source in numbers:
        highest = source[:, 1]
        good = highest[~np.isnan(highest)]
        kept = np.partition(good, heldout.rows)[: heldout.rows + 1] if len(good) > heldout.rows else good
        lowest = heapq.nsmallest(heldout.rows + 1, [*lowest, *kept.tolist()])
    return lowest[heldout.rows] if len(lowest) > heldout.rows else 1.0


def _content(picture: Picture) -> str:
    return picture.digest()


def _place(picture: Picture) -> str:
    return f"{picture.root.resolve()}\0{picture.name}"
