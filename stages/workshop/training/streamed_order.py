"""Samples of a stream, step by step: rows become samples as training goes on, and bad ones are counted, not fatal.

    RowStream ──row──> SampleBuilder ──sample──> step of samples ──dealt──> passes
                 └─ bad rows, rows left out, samples cut ──> report file and counts

Loaders read ahead. So what a state needs is noted when a step is handed out, and looked up when it was trained on: the
stream's position, the counts, and how long the report file was.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from stages.artifacts.errors import DataError, ImageError
from stages.workshop.corpus.row import BadRow, Row
from stages.workshop.training.order import Order, Steps
from stages.workshop.training.packing import deal
from stages.workshop.training.position import check_processes
from stages.workshop.training.sample_report import Case, SampleReport, place_name
from stages.workshop.training.samples import Sample, SampleBuilder
from stages.workshop.training.streaming import Position, RowStream

# A share of fewer rows than this says nothing: so many are taken as seen from the start.
_FEW = 1000


class FiledReport(SampleReport):
    """A report whose cases go into a file as they are met, so that memory does not grow with them."""

    def __init__(self, path: Path) -> None:
        super().__init__(cases=None)
        self.path = path
        self._file: IO[bytes] | None = None

    def open(self, length: int) -> None:
        """Goes on behind the first so many bytes; what stands there after them was read ahead."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self._file.truncate(min(length, self.path.stat().st_size))
        self._file.seek(0, os.SEEK_END)

    def note(self, case: Case) -> None:
        super().note(case)
        if self._file is not None:
            self._file.write(case.line().encode("utf-8"))

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return 0 if self._file is None else self._file.tell()

    def flush(self) -> None:
        """Hands what was written to the system: it survives this process."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class StreamedOrder(Order[Sample]):
    """Samples of every batch of this process, taken from a stream.

    Args:
        stream: this process' rows.
        builder: makes samples of them; its report is `report`.
        report: the account of this process.
        plan: how the run is cut.
        packed: deal the samples of a step to its passes so that all have about the same number of tokens.
        bad_rows: largest share of unusable rows.
    """

    def __init__(
        self,
        stream: RowStream,
        builder: SampleBuilder,
        report: FiledReport,
        plan: Steps,
        *,
        packed: bool,
        bad_rows: float,
    ) -> None:
        super().__init__(plan)
        self.stream = stream
        self.builder = builder
        self.report = report
        self.packed = packed
        self.bad_rows = bad_rows
        # Samples whose pictures could not be decoded when they were loaded; they are few.
        self._torn: list[tuple[str, str]] = []
        self._marks: deque[tuple[int, dict[str, Any]]] = deque([(0, self._mark())])

    def __iter__(self) -> Iterator[list[Sample]]:
        plan = self.plan
        samples = self._samples()
        self.report.open(self._marks[0][1]["bytes"])
        for step in range(self.first_step, plan.steps):
            taken = [next(samples) for _ in range(plan.accumulation * plan.samples)]
            self._marks.append((step + 1, self._mark()))
            if self.packed:
                passes = deal([sample.length for sample in taken], plan.accumulation)
            else:
                passes = [list(range(at, at + plan.samples)) for at in range(0, len(taken), plan.samples)]
            yield from ([taken[index] for index in row] for row in passes)

    def advance(self, batch: dict[str, Any]) -> None:
        """A batch was trained on; samples in it whose pictures were broken are counted, and taken out of it."""
        super().advance(batch)
        for name, problem in batch.pop("broken", ()):
            self._torn.append((name, problem))
            self._check()

    def state_dict(self) -> dict[str, Any]:
        while self._marks[0][0] < self.step:
            self._marks.popleft()
        self.report.flush()
        return {**super().state_dict(), "torn": list(self._torn), **self._marks[0][1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_processes(state, self.plan.processes)
        super().load_state_dict(state)
        self.stream.position = Position(**state["position"])
        self.report.reset(state["report"])
        self._torn = [(name, problem) for name, problem in state["torn"]]
        self._marks = deque([(self.step, {key: state[key] for key in ("position", "report", "bytes")})])

    def close(self) -> SampleReport:
        """The account of all that was trained on; what was only read ahead is not in it."""
        state = self.state_dict()
        self.report.reset(state["report"])
        self.report.open(state["bytes"])
        for name, problem in self._torn:
            self.report.note(Case(name, "broken", problems=(problem,)))
        self.report.close()
        return self.report

    def _mark(self) -> dict[str, Any]:
        return {
            "position": self.stream.position.state_dict(),
            "report": self.report.state_dict(),
            "bytes": self.report.length,
        }

    def _samples(self) -> Iterator[Sample]:
        """Samples without end.

        Raises:
            DataError: too many rows are unusable, or none gives a sample.
        """
        data_pass, before = self.stream.position.data_pass, self.report.samples
        for number, row in self.stream:
            if number != data_pass:
                self._check_progress(before)
                data_pass, before = number, self.report.samples
            self.builder.data_pass = number
            sample = self._sample(row)
            if sample is not None:
                yield sample

    def _sample(self, row: Row | BadRow) -> Sample | None:
        if isinstance(row, Row):
            try:
                return self.builder.build(row)
            except ImageError as error:
                self._bad(row.name, row, [error.what])
                return None
        self._bad(row.name or "", row, [problem.text for problem in row.problems])
        return None

    def _bad(self, name: str, row: Row | BadRow, problems: list[str]) -> None:
        place = place_name(row.place)
        case = Case(name or place, "broken", place, problems=tuple(problems), data_pass=self.builder.data_pass)
        self.report.note(case)
        self._check()

    def _check(self) -> None:
        """Raises: DataError: too many rows are unusable."""
        broken = self.report.fates["broken"] + len(self._torn)
        rows = self.report.rows
        if broken <= self.bad_rows * max(rows, _FEW):
            return
        self.report.flush()
        raise DataError(
            f"{broken} of the first {rows} rows of {self.stream.source.path} cannot be used: "
            f"{', '.join([*self.report.named.get('broken', []), *(name for name, _ in self._torn)][:5])}.",
            f"The recipe allows a share of {self.bad_rows:g}; more of them say that something is wrong with the data.",
            f"{self.report.path} names each with its problem; bluelm data check finds them all. Or raise bad_rows.",
        )

    def _check_progress(self, before: int) -> None:
        """Raises: DataError: a whole pass over the data gave no sample."""
        if self.report.samples == before:
            raise DataError(
                f"No row of {self.stream.source.path} gives a sample.",
                "All of them are too long, hold no answer, or cannot be used.",
                f"{self.report.path} names them. Raise sequence_length, allow fewer tiles, or check the data.",
            )
