"""Rows of a comparison on disk, and two models paired question by question, on made figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.errors import ArtifactError, UsageError
from stages.evaluate.agreement import Compared, Tally
from stages.evaluate.question_rows import QUESTIONS_FILE, QuestionRow, compare_rows, read_rows, rows_of, write_rows
from stages.evaluate.questions import Question


def made(
    count: int, kl: float = 0.0, lost: int = 0, wrong: int = 0, pictures: int = 100, seed: int = 0
) -> list[QuestionRow]:
    """Questions whose KL differs far more from one to the next than `kl` shifts it; some lose a token or an answer."""
    hard = np.random.default_rng(seed).exponential(1.0, count)
    return [
        QuestionRow(
            id=f"q{number}",
            task="t",
            group=f"q{number % pictures}",
            tokens=2,
            same=1 if number < lost else 2,
            kl=float(hard[number]) + 2 * kl,
            first_right=True,
            second_right=number >= wrong,
        )
        for number in range(count)
    ]


def test_what_both_find_hard_widens_nothing() -> None:
    cost = compare_rows(made(300, kl=0.01), made(300))
    assert cost.kl.value == pytest.approx(0.01) and cost.kl.interval == pytest.approx((0.01, 0.01))
    assert (cost.worse, cost.better) == (("KL",), ())
    back = compare_rows(made(300), made(300, kl=0.01))
    assert back.kl.value == -cost.kl.value and (back.worse, back.better) == ((), ("KL",))


def test_each_figure_has_its_own_verdict() -> None:
    cost = compare_rows(made(300, lost=60, wrong=45), made(300))
    assert cost.top1.value == pytest.approx(-60 / 600) and cost.exact.value == pytest.approx(-45 / 300)
    assert cost.worse == ("top-1 agreement", "exact answers")
    even = compare_rows(made(300, wrong=3), made(300))
    assert even.exact.value == pytest.approx(-3 / 300) and even.worse == even.better == ()


def test_questions_about_one_picture_are_drawn_together() -> None:
    """Sixty lost answers: on sixty pictures they are sure, on two of a hundred they are not."""
    spread, together = made(200, wrong=60, pictures=200), made(200, wrong=60, pictures=200)
    together = [row.model_copy(update={"group": "one" if row.second_right is False and number < 30 else
                                       "two" if not row.second_right else row.group})
                for number, row in enumerate(together)]  # fmt: skip
    base = made(200, pictures=200)
    assert compare_rows(spread, base).worse == ("exact answers",)
    assert compare_rows(together, base).worse == ()


def test_no_difference_at_all_leaves_doubt() -> None:
    cost = compare_rows(made(50), made(50))
    assert cost.exact.interval.low < 0 < cost.exact.interval.high and cost.worse == cost.better == ()


def test_rows_come_back_without_paths(tmp_path: Path) -> None:
    shown = (Path("/somewhere/a.png"),)
    compared = [
        Compared(Question(name, pictures, "?", "!", "colours"), Tally(3, 2, 0.5, 1.0, 2.0), None, True, False)
        for name, pictures in (("a", shown), ("b", ()), ("c", shown))
    ]
    write_rows(tmp_path, compared)
    assert read_rows(tmp_path) == rows_of(compared)
    assert [row.group for row in read_rows(tmp_path)] == ["a", "b", "a"]
    assert "somewhere" not in (tmp_path / QUESTIONS_FILE).read_text()


def test_what_cannot_be_paired_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1 questions differ \(q4 is one\)"):
        compare_rows(made(5), made(4))
    longer = [row.model_copy(update={"tokens": 3}) for row in made(5)]
    with pytest.raises(UsageError, match="5 questions differ"):
        compare_rows(made(5), longer)
    with pytest.raises(UsageError, match="no question"):
        compare_rows([], [])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_rows(tmp_path)
    (tmp_path / QUESTIONS_FILE).write_text('{"id": "a"}\n')
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_rows(tmp_path)
