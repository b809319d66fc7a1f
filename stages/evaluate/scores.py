"""Counting: accuracy per task with its interval, beside the question-only baseline, and every answer kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.evaluate.answering import Reply
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.bootstrap import mean_interval
from stages.evaluate.metrics import Interval, exact_match
from stages.evaluate.questions import Question


@dataclass(frozen=True)
class Answered:
    """One question, what the model said and what the baseline guessed."""

    question: Question
    reply: Reply
    guess: str

    @property
    def right(self) -> bool:
        """Whether the model's reply is the right answer."""
        return exact_match(self.reply.text, self.question.truth)

    @property
    def guessed_right(self) -> bool:
        """Whether the baseline's guess is."""
        return exact_match(self.guess, self.question.truth)

    def as_dict(self) -> dict[str, Any]:
        """The line of `answers.jsonl` and `wrong.jsonl`."""
        return {
            "id": self.question.name,
            "task": self.question.task,
            "pictures": [picture.name for picture in self.question.pictures],
            "question": self.question.text,
            "truth": self.question.truth,
            "answer": self.reply.text,
            "right": self.right,
        }


@dataclass(frozen=True)
class Score:
    """How a set of questions went. `interval` is that of the accuracy, 95 %, over pictures (`bootstrap.py`)."""

    questions: int
    correct: int
    baseline_correct: int
    interval: Interval

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, None of no questions."""
        return self.correct / self.questions if self.questions else None

    @property
    def baseline(self) -> float | None:
        """Share the question-only baseline gets right, None of no questions."""
        return self.baseline_correct / self.questions if self.questions else None

    def as_dict(self) -> dict[str, Any]:
        """Counts and shares as plain data."""
        return {
            "questions": self.questions,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "baseline": self.baseline,
            "baseline_correct": self.baseline_correct,
        }


def pair_up(questions: Sequence[Question], replies: Iterable[Reply], baseline: QuestionOnly) -> Iterator[Answered]:
    """Joins each question with its reply as they come.

    Raises:
        ValueError: more or fewer replies than questions (a bug in the answerer).
    """
    for question, reply in zip(questions, replies, strict=True):
        yield Answered(question, reply, baseline.answer(question))


def score(answered: Iterable[Answered]) -> Score:
    """Counts a set of answers."""
    rows = list(answered)
    groups = [" ".join(map(str, row.question.pictures)) or row.question.name for row in rows]
    interval = mean_interval([float(row.right) for row in rows], groups) if rows else Interval(0.0, 1.0)
    return Score(len(rows), sum(row.right for row in rows), sum(row.guessed_right for row in rows), interval)


def score_by_task(answered: Sequence[Answered]) -> Mapping[str, Score]:
    """A score for each task, by name."""
    tasks = sorted({row.question.task for row in answered})
    return {task: score(row for row in answered if row.question.task == task) for task in tasks}
