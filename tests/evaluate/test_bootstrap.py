"""Intervals over pictures and the paired test, against what is known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from stages.evaluate.bootstrap import FEW, compare_scores, mean_interval, ratio_difference
from stages.evaluate.metrics import wilson


def test_the_interval_of_independent_questions_is_the_normal_one() -> None:
    scores = [1.0] * 300 + [0.0] * 700
    low, high = mean_interval(scores, [str(number) for number in range(1000)])
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == (pytest.approx(0.3 - half, abs=2e-3), pytest.approx(0.3 + half, abs=2e-3))


def test_questions_about_one_picture_count_as_one() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 2, 100).astype(float)
    once = mean_interval(list(pictures), [str(number) for number in range(100)])
    tenfold = mean_interval(list(np.repeat(pictures, 10)), [str(number) for number in np.repeat(np.arange(100), 10)])
    assert tenfold == pytest.approx(once, abs=1e-12)


def test_the_test_counts_all_signs_where_they_can_be_listed() -> None:
    differences = [1.0, 1.0, 1.0, 0.5, -0.25, 1.0, 0.75, 0.5]
    exact = np.mean(
        [
            abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) >= sum(differences) - 1e-9
            for signs in itertools.product((-1, 1), repeat=len(differences))
        ]
    )
    found = compare_scores(differences, [0.0] * 8, list("abcdefgh"))
    assert found.p_value == pytest.approx(float(exact), abs=5e-3)
    assert (found.mean, found.better, found.worse) == (pytest.approx(sum(differences) / 8), 7, 1)


def test_verdicts_want_an_interval_without_zero() -> None:
    groups = [str(number) for number in range(200)]
    better = compare_scores([1.0] * 200, [1.0] * 150 + [0.0] * 50, groups)
    assert better.verdict == "higher" and better.p_value < 0.001 and better.interval.low > 0.15
    worse = compare_scores([1.0] * 150 + [0.0] * 50, [1.0] * 200, groups)
    assert worse.verdict == "lower" and worse.mean == -better.mean
    same = compare_scores([1.0, 0.0] * 100, [0.0, 1.0] * 100, groups)
    assert same.verdict == "no difference shown" and same.p_value == 1


def test_the_same_seed_draws_the_same() -> None:
    scores, groups = [0.0, 1.0, 0.5, 1.0], list("aabc")
    assert mean_interval(scores, groups, seed=3) == mean_interval(scores, groups, seed=3)


@pytest.mark.parametrize(("questions", "each"), [(100, 1), (100, 5)])
def test_all_right_or_all_wrong_leaves_the_doubt_that_pictures_leave(questions: int, each: int) -> None:
    groups = [str(number // each) for number in range(questions)]
    for score in (0, 1):
        expected = wilson(score * questions // each, questions // each)
        assert mean_interval([float(score)] * questions, groups) == expected
    same = compare_scores([1.0] * questions, [1.0] * questions, groups)
    bound = wilson(0, questions // each).high
    assert same.interval == (-bound, bound) and same.verdict == "no difference shown"


def test_a_failure_more_never_raises_the_lower_bound() -> None:
    groups = [str(number) for number in range(200)]
    lows = [mean_interval([0.0] * wrong + [1.0] * (200 - wrong), groups, draws=500).low for wrong in range(FEW)]
    assert lows == sorted(lows, reverse=True) and lows[0] == wilson(200, 200).low
    # Five that are wrong in one token of five are as one, and the doubt is that of one, not of none.
    parts = mean_interval([0.8] * 5 + [1.0] * 195, groups, draws=500)
    assert parts.low == pytest.approx(lows[1], abs=1e-12)


def test_bounds_hold_as_often_as_they_say_near_the_edge() -> None:
    """99 % right, 100 pictures: the plain bootstrap misses the truth where no picture fails, in 37 % of samples."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = mean_interval(list((rng.random(100) < 0.99).astype(float)), list(map(str, range(100))), draws=200)
        held += low <= 0.99 <= high
    assert held >= 186


def test_a_ratio_of_sums_is_paired_over_pictures() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 6, 300).astype(float)
    common = rng.exponential(1.0, 300) * tokens
    groups = [str(number // 3) for number in range(300)]
    mean, interval = ratio_difference(list(common + 0.01 * tokens), list(common), list(tokens), groups)
    # What both have in common does not widen it.
    assert mean == pytest.approx(0.01) and interval == pytest.approx((0.01, 0.01))
    with pytest.raises(ValueError, match="shorter"):
        ratio_difference([1.0, 2.0], [1.0], [1.0, 1.0], ["a", "b"])
    _, interval = ratio_difference([3.0] * 50, [3.0] * 50, [4.0] * 50, list(map(str, range(50))), share=True)
    assert interval == (-wilson(0, 50).high, wilson(0, 50).high)


def test_nothing_cannot_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="0 scores"):
        mean_interval([], [])
