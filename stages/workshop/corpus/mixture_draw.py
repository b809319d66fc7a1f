"""The second reading: rows drawn at random as they pass, shuffled by way of the disk, so that none stays in memory.

A source that gives d of its n rows gives each d // n times, and d mod n of them once more: which ones, decides a
sequential draw (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S), uniform and of constant memory. Each row
drawn goes to a random one of some files; then each file is shuffled in memory, and they follow one another. That is a
uniform shuffle of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

# Rows of one file while it is shuffled: about 100 MB of conversations.
_ROWS_IN_MEMORY = 100_000
_MOST_FILES = 256


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Chance that depends on the seed and on what it is for, and not on what else is drawn."""
    text = "\0".join(str(word) for word in (seed, *words))
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest(), "big")
    )


class SequentialDraw:
    """How often each of n rows comes, one after the other, so that together they are d.

    Attributes:
        left: how many rows are still to come.
        most: how often any row comes at most.
    """

    def __init__(self, rows: int, drawn: int, rng: np.random.Generator) -> None:
        self._each, self._extra = divmod(drawn, rows) if rows else (0, 0)
        self.left = rows
        self.most = self._each + bool(self._extra)
        self._rng = rng

    def next(self) -> int:
        """How often the next row comes."""
        chosen = bool(self._extra) and self._rng.random() * self.left < self._extra
        self.left -= 1
        self._extra -= chosen
        return self._each + int(chosen)


class DiskShuffle:
    """Lines in a random order.

    Args:
        folder: where they lie meanwhile; it is made, and empty again at the end.
        total: about how many lines will come.
        seed: of the order.
    """

    def __init__(self, folder: Path, total: int, seed: int) -> None:
        self._count = min(_MOST_FILES, -(-total // _ROWS_IN_MEMORY)) or 1
        self._seed = seed
        self._rng = generator(seed, "file")
        folder.mkdir()
        self._folder = folder
        self._streams: list[BinaryIO] = [self._path(index).open("wb") for index in range(self._count)]

    def add(self, line: str) -> None:
        """Takes a line, without its end."""
        index = int(self._rng.integers(self._count)) if self._count > 1 else 0
        self._streams[index].write(line.encode("utf-8") + b"\n")

    def lines(self) -> Iterator[str]:
        """All of them."""
        for stream in self._streams:
            stream.close()
        for index in range(self._count):
            lines = self._path(index).read_bytes().splitlines()
            order = generator(self._seed, "order", index).permutation(len(lines))
            for place in order:
                yield lines[place].decode("utf-8")
            self._path(index).unlink()
        self._folder.rmdir()

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.lines"
