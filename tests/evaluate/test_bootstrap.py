"""Intervals over pictures and the paired test, against what is known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from stages.evaluate.bootstrap import compare_scores, mean_interval


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
    assert mean_interval([1.0], ["a"]) == (1.0, 1.0)


def test_nothing_cannot_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="0 scores"):
        mean_interval([], [])
