"""The corpus that answers make: rows, what failed and why, and counts of both."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType

from stages.workshop.corpus.index import CorpusIndex, PictureRoots, SplitCount
from stages.workshop.corpus.llava import LlavaWriter
from stages.workshop.corpus.revision.answers import Task
from stages.workshop.corpus.revision.asking import Outcome
from stages.workshop.corpus.revision.revised_rows import failure, revised
from stages.workshop.corpus.row import Row

TRAIN_FILE = "train.json"
FAILED_FILE = "failed.jsonl"
_KEEPS_NONE = "the model keeps none of its pairs"
_REASONS_SHOWN = 8


class RevisedCorpus:
    """Writes a corpus row by row, in a `with` block. Pictures stay where they are and are referred to."""

    def __init__(self, folder: Path, task: Task, caption_questions: tuple[str, ...]) -> None:
        self.good = self.failed = 0
        self._task, self._caption_questions = task, caption_questions
        self._folder = folder
        self._roots = PictureRoots()
        self._rows = LlavaWriter(folder / TRAIN_FILE, self._roots.refer)
        self._failed = (folder / FAILED_FILE).open("w", encoding="utf-8")
        self._pictures: set[int] = set()
        self._questions: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def write(self, outcome: Outcome) -> None:
        """Adds what became of a row: nothing where it was not asked."""
        if outcome.unasked:
            return
        if isinstance(outcome.row, Row) and outcome.pairs:
            row = revised(outcome.row, outcome.pairs, self._task, self._caption_questions)
            self._rows.write(row)
            self.good += 1
            self._questions.update(row.tasks)
            self._pictures.update(map(hash, row.pictures))
        else:
            reason = outcome.reason or _KEEPS_NONE
            self.failed += 1
            self._reasons[reason.partition(":")[0]] += 1
            self._failed.write(json.dumps(failure(outcome, reason), ensure_ascii=False) + "\n")

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows failed for the commonest reasons."""
        return dict(self._reasons.most_common(_REASONS_SHOWN))

    def write_index(self) -> CorpusIndex:
        """Writes and returns the corpus' index."""
        count = SplitCount(len(self._pictures), self.good, dict(sorted(self._questions.items())))
        index = CorpusIndex({"train": count}, self._roots.folders)
        index.write(self._folder)
        return index

    def __enter__(self) -> RevisedCorpus:
        self._rows.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failed.close()
        self._rows.__exit__(kind, error, trace)
