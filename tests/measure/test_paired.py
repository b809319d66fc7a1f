"""Paired ratios: on known figures, under symmetry, and against the binomial and the bootstrap."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measure.paired import (
    fastest,
    interval_coverage,
    interval_rank,
    median_interval,
    paired_ratio,
    rank_sums,
    unpaired_ratio,
)

SECONDS = st.floats(0.01, 100.0)
PAIRS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=20)


def test_seven_pairs() -> None:
    ours, peers = [1.0] * 7, [2.0, 1.9, 2.2, 1.7, 2.1, 9.0, 2.05]
    ratio = paired_ratio(ours, peers)
    # One slow turn of the peer moves the end of the interval, not the median.
    assert ratio == (2.05, 1.7, 9.0, pytest.approx(1 - 2 / 128), 7)
    assert ratio.as_dict()["median"] == 2.05


def test_a_slow_spell_of_the_machine_cancels_out() -> None:
    spell = [1, 1, 7, 1, 3, 1, 1, 1, 20]
    ratio = paired_ratio([0.5 * slow for slow in spell], [1.5 * slow for slow in spell])
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((3, 3, 3))


@given(PAIRS)
def test_swapping_sides_inverts(pairs: list[tuple[float, float]]) -> None:
    subject, other = zip(*pairs, strict=True)
    there, back = paired_ratio(subject, other), paired_ratio(other, subject)
    assert back.low == pytest.approx(1 / there.high) and back.high == pytest.approx(1 / there.low)
    assert back.coverage == there.coverage
    if len(pairs) % 2:
        assert back.median == pytest.approx(1 / there.median)


@given(PAIRS, st.floats(0.1, 10), st.floats(0.1, 10), st.randoms())
def test_units_and_the_order_of_turns_do_not_matter(
    pairs: list[tuple[float, float]], mine: float, theirs: float, chance: object
) -> None:
    subject, other = zip(*pairs, strict=True)
    plain = paired_ratio(subject, other)
    chance.shuffle(pairs)  # type: ignore[attr-defined]
    mixed = paired_ratio([a * mine for a, _ in pairs], [b * theirs for _, b in pairs])
    assert mixed[:3] == pytest.approx(tuple(value * theirs / mine for value in plain[:3]))
    assert plain.low <= plain.median <= plain.high and mixed[3:] == plain[3:]


@pytest.mark.parametrize("count", range(1, 12))
def test_coverage_is_counted_over_all_outcomes(count: int) -> None:
    """Every sample lies below or above the true median with equal chance: count the outcomes that straddle it."""
    for rank in range((count + 1) // 2):
        inside = sum(rank < sum(below) < count - rank for below in itertools.product((0, 1), repeat=count))
        assert interval_coverage(count, rank) == pytest.approx(inside / 2**count)


def test_the_interval_is_the_narrowest_that_is_sure_enough() -> None:
    assert [interval_rank(count, 0.95) for count in (1, 5, 6, 8, 9, 11, 12, 15, 20)] == [0, 0, 0, 0, 1, 1, 2, 3, 5]
    assert interval_coverage(5, 0) < 0.95 <= interval_coverage(6, 0)
    assert paired_ratio([1, 1], [2, 3]).coverage == 0.5


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        logs = rng.standard_t(2, 15)
        ratio = paired_ratio([1.0] * 15, np.exp(logs).tolist())
        hits += ratio.low <= 1.0 <= ratio.high
    assert hits / 2000 == pytest.approx(interval_coverage(15, interval_rank(15, 0.95)), abs=0.015)


@pytest.mark.parametrize(("ours", "peers"), [([], []), ([1.0], []), ([1.0], [0.0]), ([-1.0], [1.0])])
def test_what_has_no_ratio_is_refused(ours: list[float], peers: list[float]) -> None:
    with pytest.raises(ValueError, match=r"make no pairs|has no ratio"):
        paired_ratio(ours, peers)


@given(st.dictionaries(st.text(max_size=3), st.lists(SECONDS, min_size=1, max_size=7), min_size=1))
def test_the_fastest_has_the_smallest_median(times: dict[str, list[float]]) -> None:
    best = statistics.median(times[fastest(times)])
    assert all(best <= statistics.median(values) for values in times.values())


def test_nobody_is_not_fastest() -> None:
    with pytest.raises(ValueError, match="nobody"):
        fastest({})


def brute_rank_sums(first: int, second: int) -> list[int]:
    """By every order there is."""
    counts = [0] * (first * second + 1)
    for places in itertools.combinations(range(first + second), first):
        others = [place for place in range(first + second) if place not in places]
        counts[sum(mine > theirs for mine in places for theirs in others)] += 1
    return counts


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 4), (3, 2), (4, 4), (5, 3)])
def test_rank_sums_are_those_of_all_orders(first: int, second: int) -> None:
    assert rank_sums(first, second) == brute_rank_sums(first, second)


def test_unpaired_runs_are_compared_all_with_all() -> None:
    ratio = unpaired_ratio([1.0, 2.0], [2.0, 4.0, 8.0])
    # 2/1, 2/2, 4/1, 4/2, 8/1, 8/2, sorted: 1 2 2 4 4 8; one of ten orders lies on either side of the whole range.
    assert ratio == (3.0, 1.0, 8.0, pytest.approx(0.8), 6)
    with pytest.raises(ValueError, match="no ratio"):
        unpaired_ratio([], [1.0])
    with pytest.raises(ValueError, match="no ratio"):
        unpaired_ratio([0.0], [1.0])


def test_the_unpaired_interval_covers_as_often_as_it_says() -> None:
    draw, hits, trials = np.random.default_rng(5), 0, 2000
    for _ in range(trials):
        subject, other = np.exp(draw.normal(0, 0.2, 6)), 1.5 * np.exp(draw.normal(0, 0.2, 7))
        found = unpaired_ratio(subject.tolist(), other.tolist())
        hits += found.low <= 1.5 <= found.high
    assert found.coverage >= 0.95
    # Three standard deviations of 2000 draws around what it promises.
    assert abs(hits / trials - found.coverage) < 3 * (0.05 * 0.95 / trials) ** 0.5


@given(st.lists(SECONDS, min_size=1, max_size=7), st.lists(SECONDS, min_size=1, max_size=7))
def test_swapping_unpaired_sides_inverts(subject: list[float], other: list[float]) -> None:
    there, back = unpaired_ratio(subject, other), unpaired_ratio(other, subject)
    assert back.low == pytest.approx(1 / there.high) and back.high == pytest.approx(1 / there.low)
    assert back.coverage == pytest.approx(there.coverage)


def test_the_interval_of_a_median() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # Of nine, the second and the second last: 1 - 2 · 10/512 = 96 %.
    assert median_interval([float(value) for value in range(9)]) == (1.0, 7.0)
    with pytest.raises(ValueError, match="no samples"):
        median_interval([])
