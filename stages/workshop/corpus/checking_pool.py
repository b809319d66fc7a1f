"""Rows checked in several processes, in order; what was found before an interruption is not looked at again."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TextIO

from stages.workshop.corpus.checking import Finding, Length, check_row, remembering
from stages.workshop.corpus.processes import process_pool
from stages.workshop.corpus.row import BadRow, Problem, Row

AnyRow = Row | BadRow
_CHUNK = 32
_FLUSHED = 256


def check_rows(rows: Iterable[AnyRow], length: Length | None, processes: int) -> Iterator[tuple[AnyRow, Finding]]:
    """Every row with what was found, in order; only a few rows for each process are held at a time.

    A picture that ends the process that decodes it is told as broken; the other rows are not lost.

    Args:
        rows: what to check.
        length: count tokens for this model.
        processes: how many decode; 1 stays in this one.
    """
    if processes == 1:
        look = remembering()
        yield from ((row, check_row(row, length, look)) for row in rows)
        return
    stream = iter(rows)
    waiting: deque[_Job] = deque()
    with _Workers(processes, length) as workers:
        while chunk := list(itertools.islice(stream, _CHUNK)):
            waiting.append(workers.submit(chunk))
            if len(waiting) > 2 * processes:
                job = waiting.popleft()
                yield from zip(job.rows, workers.findings(job), strict=True)
        while waiting:
            job = waiting.popleft()
            yield from zip(job.rows, workers.findings(job), strict=True)


class _Job(NamedTuple):
    rows: list[AnyRow]
    future: Future[list[Finding]]
    pool: ProcessPoolExecutor


class _Workers:
    """Processes that check rows, and new ones where a picture brought them down."""

    def __init__(self, processes: int, length: Length | None) -> None:
        self._processes, self._length = processes, length
        self._pool = process_pool(processes)

    def submit(self, rows: list[AnyRow]) -> _Job:
        """Begins to check rows."""
        try:
            return _Job(rows, self._pool.submit(_check, rows, self._length), self._pool)
        except BrokenProcessPool:
            self._renew(self._pool)
            return _Job(rows, self._pool.submit(_check, rows, self._length), self._pool)

    def findings(self, job: _Job) -> list[Finding]:
        """What was found; where the processes ended meanwhile, the rows are checked again one by one."""
        try:
            return job.future.result()
        except BrokenProcessPool:
            self._renew(job.pool)
            return [self._alone(row) for row in job.rows]

    def _alone(self, row: AnyRow) -> Finding:
        job = self.submit([row])
        try:
            return job.future.result()[0]
        except BrokenProcessPool:
            self._renew(job.pool)
            return Finding((Problem("broken-picture", "decoding its pictures ends the process that does it"),))

    def _renew(self, broken: ProcessPoolExecutor) -> None:
        if self._pool is broken:
            broken.shutdown(wait=False, cancel_futures=True)
            self._pool = process_pool(self._processes)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def _check(rows: Sequence[AnyRow], length: Length | None) -> list[Finding]:
    look = remembering()
    return [check_row(row, length, look) for row in rows]


def replayed(
    log: Path, rows: Iterable[AnyRow], length: Length | None, processes: int
) -> Generator[tuple[AnyRow, Finding], None, None]:
    """`check_rows`, with what a stopped run found taken from a file, and what is new written to it.

    Args:
        log: findings in the order of rows, a line each; a half-written last line is dropped.
        rows: the same rows as when the file was begun.
        length: as `check_rows`.
        processes: as `check_rows`.
    """
    stream = iter(rows)
    with log.open("a+", encoding="utf-8", newline="\n") as file:
        yield from _known(file, stream)
        for number, (row, finding) in enumerate(check_rows(stream, length, processes), start=1):
            file.write(finding.as_line())
            if number % _FLUSHED == 0:
                file.flush()
            yield row, finding


def _known(log: TextIO, rows: Iterator[AnyRow]) -> Iterator[tuple[AnyRow, Finding]]:
    """Rows whose finding the file knows; behind its last whole line it is cut off."""
    log.seek(0)
    end = 0
    while line := log.readline():
        try:
            finding = Finding.of_line(line) if line.endswith("\n") else None
        except (ValueError, TypeError):
            finding = None
        row = next(rows, None) if finding is not None else None
        if finding is None or row is None:
            break
        end = log.tell()
        yield row, finding
    log.seek(end)
    log.truncate()
