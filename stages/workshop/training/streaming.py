"""Rows of a set larger than memory: read shard by shard, shared by the processes, shuffled in windows, resumable.

    pass 0:  shards in a random order ──> this process' share ──> windows of `shuffle_rows` ──> each in a random order

Everything random is a pure function of (seed, pass, window), so a position is five small numbers: a resumed run opens
the shard where the open window begins, reads that window again, and goes on at the very row.

Loader workers get whole batches of samples and only decode their pictures: how many there are changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stages.artifacts.errors import DataError
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Row

# First words of the seeds: 0 and 1 are those of BatchOrder.
_SHARDS, _ROWS = 2, 3


@dataclass(frozen=True)
class Position:
    """How far a stream was read.

    Attributes:
        data_pass: passes over the data before this one.
        shard: where the open window begins: shards of this process' pass before it,
        row: and rows of that shard before it.
        window: windows of this pass before it.
        taken: rows of the open window that were given.
    """

    data_pass: int = 0
    shard: int = 0
    row: int = 0
    window: int = 0
    taken: int = 0

    def state_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class RowStream:
    """The rows of one process, without end.

    Args:
        source: all rows.
        seed: of the shuffles.
        window: rows that are shuffled together.
        rank, ranks: this process, and how many share the rows: whole shards where there are enough of them, otherwise
            every process reads all shards and takes every `ranks`-th row.
    """

    def __init__(self, source: RowSource, seed: int, window: int, rank: int = 0, ranks: int = 1) -> None:
        self.source = source
        self.seed = seed
        self.window = window
        self.rank, self.ranks = rank, ranks
        self.position = Position()

    def __iter__(self) -> Iterator[tuple[int, Row | BadRow]]:
        """The number of the pass, and a row of it; `position` is behind the row that was given last.

        Raises:
            DataError: a shard cannot be read, or there is no row.
        """
        while True:
            rows = self._read(self.position)
            while window := list(itertools.islice(rows, self.window)):
                yield from self._shuffled([row for row, _, _ in window])
                _, shard, row = window[-1]
                self.position = Position(self.position.data_pass, shard, row, self.position.window + 1)
            if not self.position.window:
                raise DataError(
                    f"{self.source.path} has no row for process {self.rank} of {self.ranks}.",
                    "It would wait for data for ever.",
                    "Gather a larger set, or train with fewer processes.",
                )
            self.position = Position(self.position.data_pass + 1)

    def _shuffled(self, window: list[Row | BadRow]) -> Iterator[tuple[int, Row | BadRow]]:
        at = self.position
        seed = [self.seed, _ROWS, self.rank, at.data_pass, at.window]
        order = np.random.default_rng(seed).permutation(len(window))
        for taken in range(at.taken, len(window)):
            self.position = replace(at, taken=taken + 1)
            yield at.data_pass, window[order[taken]]

    def _read(self, start: Position) -> Iterator[tuple[Row | BadRow, int, int]]:
        """Rows of this process from a window's beginning on, each with its shard and the number of the next row."""
        shards = np.random.default_rng([self.seed, _SHARDS, start.data_pass]).permutation(len(self.source.shards))
        whole = len(shards) >= self.ranks
        mine = shards[self.rank :: self.ranks] if whole else shards
        for number in range(start.shard, len(mine)):
            first = start.row if number == start.shard else 0
            rows = itertools.islice(self.source.read(self.source.shards[mine[number]]), first, None)
            for index, row in enumerate(rows, first):
                # The number of the shard moves the first row around, so that small shards favour no process.
                if whole or (index + number) % self.ranks == self.rank:
                    yield row, number, index + 1
