"""Exact match as stated, and Wilson's interval against published values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics import exact_match, normalise, wilson


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("Red.", "red"),
        ("  red\n", "Red"),
        ("a  red\tcircle!?", "A red circle"),
        ("STRASSE", "straße"),
        ("３", "3"),
        ("红色。", "红色"),
        ("yes . ", "yes"),
    ],
)
def test_what_counts_as_the_same(answer: str, truth: str) -> None:
    assert exact_match(answer, truth)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [("a red circle", "red circle"), ("3", "three"), ("3.5", "35"), ("", "red"), ("redd", "red"), (".5", "5")],
)
def test_what_does_not(answer: str, truth: str) -> None:
    assert not exact_match(answer, truth)


def test_a_truth_of_punctuation_is_compared_as_it_is() -> None:
    assert exact_match(" ? ", "?")
    assert not exact_match("!", "?")
    assert not exact_match("", "?")


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # 81 of 263: Newcombe 1998, Table I (method 3); 15 of 148: same; 0 of 20, 1 of 29: same.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_against_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "total"), [(3, 2), (-1, 5), (0, -1)])
def test_wilson_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="right of"):
        wilson(correct, total)


@given(st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_holds_the_share_and_is_symmetric(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    mirrored = wilson(total - correct, total)
    assert (low, high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)
