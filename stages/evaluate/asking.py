"""Asking all questions and keeping every answer, with a clock."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Progress
from stages.evaluate.answering import Answerer, beside_their_pictures
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.questions import Question
from stages.evaluate.scores import Answered, pair_up
from stages.measure.clock import stopwatch


@dataclass(frozen=True)
class Asked:
    """Every question with its answer, in the order they were given, and the seconds answering took."""

    answered: tuple[Answered, ...]
    seconds: float


def ask(questions: Sequence[Question], answerer: Answerer, baseline: QuestionOnly) -> Generator[Progress, None, Asked]:
    """Asks the questions, those about the same pictures side by side; yields progress, returns the answers."""
    ordered = beside_their_pictures(questions)
    answered: list[Answered] = []
    with stopwatch() as watch:
        for row in pair_up(ordered, answerer(ordered), baseline):
            answered.append(row)
            yield Progress("asking", len(answered), len(ordered), "questions")
    place = {id(question): index for index, question in enumerate(questions)}
    answered.sort(key=lambda row: place[id(row.question)])
    return Asked(tuple(answered), watch.seconds)


def choose(questions: Sequence[Question], tasks: Sequence[str], limit: int | None) -> list[Question]:
    """The questions of these tasks (all, where none are named), thinned out evenly to at most `limit`.

    Raises:
        UsageError: a task that no question has.
    """
    known = sorted({question.task for question in questions})
    for task in tasks:
        if task not in known:
            raise UsageError(
                f"No question has the task {task!r}.",
                "Nothing would be measured.",
                "Tasks here: " + (", ".join(known) or "none") + ".",
            )
    chosen = [question for question in questions if not tasks or question.task in tasks]
    if limit is None or limit >= len(chosen):
        return chosen
    return [chosen[index * len(chosen) // limit] for index in range(limit)]
