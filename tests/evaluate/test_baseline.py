"""The question-only baseline, worked by hand."""

from __future__ import annotations

from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.questions import Question


def asked(text: str, truth: str, task: str) -> Question:
    return Question("q", (), text, truth, task)


TRAINING = [
    asked("Which colour?", "Red", "colours"),
    asked("which colour?", "red.", "colours"),
    asked("Which colour?", "blue", "colours"),
    asked("Name it.", "blue", "colours"),
    asked("Name it!", "azure", "colours"),
    asked("Name its hue.", "blue", "colours"),
    asked("How many?", "3", "counts"),
]


def test_the_commonest_answer_to_the_same_text() -> None:
    assert QuestionOnly(TRAINING).answer(asked("WHICH COLOUR", "green", "colours")) == "red"


def test_ties_go_to_the_alphabetically_first_in_any_order() -> None:
    for training in (TRAINING, TRAINING[::-1]):
        assert QuestionOnly(training).answer(asked("Name it?", "x", "colours")) == "azure"


def test_a_new_text_gets_the_commonest_answer_of_its_task() -> None:
    assert QuestionOnly(TRAINING).answer(asked("Tell me more.", "x", "colours")) == "blue"
    assert QuestionOnly(TRAINING).answer(asked("Tell me more.", "x", "counts")) == "3"


def test_a_new_task_gets_the_commonest_answer_of_all() -> None:
    assert QuestionOnly(TRAINING).answer(asked("Tell me more.", "x", "shapes")) == "blue"


def test_without_training_it_says_nothing() -> None:
    assert QuestionOnly([]).answer(asked("Which colour?", "red", "colours")) == ""
