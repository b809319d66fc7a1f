"""One model's readings held against those of several others: what quantization's report asks of its verb."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.evaluate.agreement import Compared, Reader, ReadingStore, compare, summarize
from stages.evaluate.question_rows import write_rows
from stages.evaluate.questions import Question


class Judge:
    """Keeps the readings of a reference model on disk, and compares others with them.

    Args:
        questions: with their answers.
        folder: an empty folder for the readings.
    """

    def __init__(self, questions: Sequence[Question], folder: Path) -> None:
        self.questions = questions
        self._store = ReadingStore(folder / "reference")
        self._last: list[Compared] = []

    def reference(self, reader: Reader) -> Iterator[int]:
        """Keeps what the reference model reads, telling how many questions it has read."""
        yield from self._store.keep(reader(self.questions))

    def agreement(self, reader: Reader) -> Generator[int, None, dict[str, Any]]:
        """Compares a model with the reference, telling how many questions it has read; returns `Agreement.as_dict`."""
        rows: list[Compared] = []
        for row in compare(self.questions, self._store, reader(self.questions)):
            rows.append(row)
            yield len(rows)
        self._last = rows
        return summarize(rows).as_dict()

    def write(self, folder: Path) -> None:
        """Writes each question of the last comparison into a folder: `questions.jsonl`."""
        write_rows(folder, self._last)
