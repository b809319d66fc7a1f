"""What a model that never looks at the picture would get: the floor that an accuracy is to be read against."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from stages.evaluate.metrics import normalise
from stages.evaluate.questions import Question


class QuestionOnly:
    """Answers by the question alone, with the most common training answer to the same question text.

    A question that training never asked gets the most common answer of its task, and one of an unknown task the most
    common answer of all. Among equally common answers the alphabetically first is taken, so that the baseline does not
    depend on the order of the rows.
    """

    def __init__(self, training: Iterable[Question]) -> None:
        by_text: dict[str, Counter[str]] = defaultdict(Counter)
        by_task: dict[str, Counter[str]] = defaultdict(Counter)
        everything: Counter[str] = Counter()
        for question in training:
            answer = normalise(question.truth)
            by_text[normalise(question.text)][answer] += 1
            by_task[question.task][answer] += 1
            everything[answer] += 1
        self._by_text = {text: _commonest(answers) for text, answers in by_text.items()}
        self._by_task = {task: _commonest(answers) for task, answers in by_task.items()}
        self._otherwise = _commonest(everything)

    def answer(self, question: Question) -> str:
        """The guess, normalised; empty where there was no training question at all."""
        known = self._by_text.get(normalise(question.text))
        if known is not None:
            return known
        return self._by_task.get(question.task, self._otherwise)


def _commonest(answers: Counter[str]) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer), default="")
