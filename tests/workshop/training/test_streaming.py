"""A stream of rows: every pass whole, shared, shuffled, bounded in memory, and resumed at the very row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import DataError
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Row, Turn
from stages.workshop.training.streaming import Position, RowStream


@dataclass(frozen=True)
class Counted(RowSource):
    """Shards of so many rows each; tells which rows were read."""

    sizes: tuple[int, ...] = ()
    read_rows: list[str] = field(default_factory=list)

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        for number in range(self.sizes[int(shard.name)]):
            name = f"{shard.name}.{number}"
            self.read_rows.append(name)
            yield Row(name, (Turn("user", name),))


def source(*sizes: int) -> Counted:
    shards = tuple(Path(str(number)) for number in range(len(sizes)))
    return Counted(Path("set"), "test", shards, Path(), sizes)


def every_row(sizes: tuple[int, ...]) -> list[str]:
    return sorted(f"{shard}.{number}" for shard, size in enumerate(sizes) for number in range(size))


def names(stream: RowStream, count: int) -> list[tuple[int, str]]:
    return [(data_pass, str(row.name)) for data_pass, row in itertools.islice(stream, count)]


def passes(stream: RowStream, count: int) -> list[list[str]]:
    """The rows of the first so many passes."""
    found: list[list[str]] = []
    for data_pass, row in stream:
        if data_pass == count:
            return found
        if data_pass == len(found):
            found.append([])
        found[data_pass].append(str(row.name))
    raise AssertionError("a stream has no end")


sets = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)


@given(sizes=sets, ranks=st.integers(1, 5), window=st.integers(1, 12), seed=st.integers(0, 3))
def test_every_pass_has_every_row_once_over_all_processes(
    sizes: tuple[int, ...], ranks: int, window: int, seed: int
) -> None:
    if len(sizes) < ranks and any(size < ranks for size in sizes):
        sizes = tuple(size + ranks for size in sizes)
    shares = [passes(RowStream(source(*sizes), seed, window, rank, ranks), 2) for rank in range(ranks)]
    for number in range(2):
        together = [row for share in shares for row in share[number]]
        assert sorted(together) == every_row(sizes)


@given(sizes=sets, window=st.integers(1, 12), taken=st.integers(0, 60), ranks=st.integers(1, 2))
def test_a_resumed_stream_goes_on_at_the_very_row(sizes: tuple[int, ...], window: int, taken: int, ranks: int) -> None:
    sizes = tuple(size + ranks for size in sizes)
    whole = RowStream(source(*sizes), 1, window, 0, ranks)
    names(whole, taken)
    position = whole.position
    rest = names(RowStream(source(*sizes), 1, window, 0, ranks), taken + 40)[taken:]
    resumed = RowStream(source(*sizes), 1, window, 0, ranks)
    resumed.position = Position(**position.state_dict())
    assert names(resumed, 40) == rest


def test_shuffles_are_those_of_the_seed_and_differ_between_passes() -> None:
    sizes = (20, 20, 20)
    first, second = passes(RowStream(source(*sizes), 0, 16), 2)
    assert [first, second] == passes(RowStream(source(*sizes), 0, 16), 2)
    assert first != second
    assert first != passes(RowStream(source(*sizes), 1, 16), 1)[0]
    # A window reaches over shards, and within it no order is left.
    shards = [row.split(".")[0] for row in first]
    assert sorted(set(shards[16:32])) == sorted(set(shards[16:32]), key=int)
    assert len(set(shards[16:32])) == 2
    assert first[:16] != sorted(first[:16], key=lambda row: int(row.split(".")[1]))


def test_no_more_than_a_window_is_read_ahead() -> None:
    rows = source(1000, 1000)
    stream = iter(RowStream(rows, 0, 50))
    for taken in range(1, 301):
        next(stream)
        assert len(rows.read_rows) <= -(-taken // 50) * 50
    # A resumed stream reads the shard up to its window, and the window.
    again = source(1000, 1000)
    resumed = RowStream(again, 0, 50)
    resumed.position = Position(shard=0, row=250, window=5, taken=49)
    next(iter(resumed))
    assert len(again.read_rows) == 300


def test_whole_shards_are_read_by_one_process_where_there_are_enough() -> None:
    rows = source(*[10] * 8)
    passes(RowStream(rows, 0, 5, rank=1, ranks=4), 1)
    # One row of the second pass was asked for, which reads a window of it.
    assert len(rows.read_rows) == 20 + 5


@pytest.mark.parametrize(("sizes", "ranks"), [((), 1), ((0, 0), 1), ((1,), 3)])
def test_a_process_without_rows_says_so(sizes: tuple[int, ...], ranks: int) -> None:
    with pytest.raises(DataError, match=f"set has no row for process {ranks - 1} of {ranks}") as caught:
        next(iter(RowStream(source(*sizes), 0, 5, rank=ranks - 1, ranks=ranks)))
    assert "fewer processes" in caught.value.fix
