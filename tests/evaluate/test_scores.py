"""Counting against a hand-worked corpus and a fake answerer."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from stages.evaluate.answering import Reply, beside_their_pictures, one_by_one
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.bootstrap import mean_interval
from stages.evaluate.questions import Question, read_questions
from stages.evaluate.scores import pair_up, score, score_by_task


def always(text: str) -> Reply:
    return Reply(text, image_tokens=4, prompt_tokens=9, generated_tokens=1)


def test_counts_per_task_and_of_all(corpus: Path) -> None:
    questions = read_questions(corpus, "heldout")
    baseline = QuestionOnly(read_questions(corpus, "train"))
    answer = one_by_one(lambda question: always("Green." if question.task == "colours" else "circle"))
    answered = list(pair_up(questions, answer(questions), baseline))
    assert [row.right for row in answered] == [False, True, True, False]
    # Guesses: red (by text), red (by text), circle (by task), circle (by text).
    assert [row.guess for row in answered] == ["red", "red", "circle", "circle"]
    total = score(answered)
    assert (total.questions, total.correct, total.baseline_correct) == (4, 2, 2)
    assert (total.accuracy, total.baseline) == (0.5, 0.5)
    groups = [" ".join(map(str, question.pictures)) for question in questions]
    assert total.interval == mean_interval([0.0, 1.0, 1.0, 0.0], groups)
    assert {task: result.correct for task, result in score_by_task(answered).items()} == {"colours": 1, "shapes": 1}


def test_nothing_asked_has_no_accuracy() -> None:
    nothing = score([])
    assert nothing.accuracy is None and nothing.baseline is None
    assert nothing.as_dict()["interval"] == [0.0, 1.0]


def test_an_answerer_that_loses_a_reply_is_a_bug(corpus: Path) -> None:
    questions = read_questions(corpus, "heldout")
    with pytest.raises(ValueError, match="zip"):
        list(pair_up(questions, iter([always("red")]), QuestionOnly([])))


def test_questions_move_beside_those_of_the_same_pictures(corpus: Path) -> None:
    names = [question.name for question in beside_their_pictures(read_questions(corpus, "heldout"))]
    assert names == ["h0", "h2", "h1", "h3"]


def test_moving_keeps_every_question() -> None:
    questions = [Question(str(number), (Path(f"{number % 3}.png"),), "?", "!") for number in range(10)]
    moved = beside_their_pictures(questions)
    assert sorted(moved, key=lambda item: int(item.name)) == questions
    pictures = [question.pictures for question in moved]
    assert len([1 for left, right in itertools.pairwise(pictures) if left != right]) == 2
