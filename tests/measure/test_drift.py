"""Drift: trends by ranks against every order there is, their size by the median slope, and what is told of them."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measure.drift import (
    COUNTED,
    chance_of_trend,
    counted_chance,
    disturbed_by,
    drift_sentences,
    drifts,
    normal_chance,
    slope,
)
from stages.measure.records import Record, record_of


def record(samples: Sequence[float], others: float | None = None, run: str = "r", test: str = "prefill") -> Record:
    shares = None if others is None else (others,) * len(samples)
    return record_of(test, "m", samples, tokens=10, run=run, samples_others=shares)  # type: ignore[arg-type]


@given(st.permutations(range(5)))
def test_the_chance_of_a_trend_is_that_of_all_orders(order: list[int]) -> None:
    def falls(values: Sequence[int]) -> int:
        return sum(later < earlier for earlier, later in itertools.combinations(values, 2))

    mine = min(falls(order), 10 - falls(order))
    as_clear = sum(min(falls(other), 10 - falls(other)) <= mine for other in itertools.permutations(range(5)))
    assert chance_of_trend(order) == pytest.approx(min(1.0, as_clear / math.factorial(5)))


def sides(values: Sequence[float]) -> tuple[int, int]:
    pairs = list(itertools.combinations(values, 2))
    return sum(b < a for a, b in pairs), sum(b > a for a, b in pairs)


@pytest.mark.parametrize("leaning", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("count", [30, COUNTED])
def test_where_both_can_be_had_the_normal_chance_is_the_counted_one(count: int, leaning: float) -> None:
    rng = random.Random(count)
    values = [rng.gauss(leaning * place, 2.0) for place in range(count)]
    exact, normal = (chance(values, *sides(values)) for chance in (counted_chance, normal_chance))
    assert normal == pytest.approx(exact, abs=0.1 / count)
    assert chance_of_trend(values) == exact


def test_many_turns_are_judged_by_the_normal_chance() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0.004 * place, 1.0) for place in range(400)]
    assert chance_of_trend(values) == normal_chance(values, *sides(values)) < 0.02
    # Of equal values only the pairs that differ say anything: three levels, in an order as even as can be.
    assert chance_of_trend([1.0] * 400) == 1.0
    even = [float(place % 3) for place in range(399)]
    assert chance_of_trend(even) > 0.5


def test_equal_values_narrow_the_spread() -> None:
    """Two levels, sorted: the chance is about that of a rank-sum test, by hand."""
    values = [0.0] * 30 + [1.0] * 30
    pairs, levels = 30 * 30, math.sqrt(30 * 30 * 61 / 3)
    assert normal_chance(values, *sides(values)) == pytest.approx(math.erfc((pairs - 1) / levels / math.sqrt(2)))


def test_a_steady_slope_is_found_beside_an_outlier() -> None:
    assert slope([1, 3, 5, 7, 99, 11]) == pytest.approx(2)


def test_a_machine_that_slows_down_is_told() -> None:
    # All cases of a turn see the same heat; one of them is noisy by itself.
    heat = [1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]
    cases = [[base * pace for pace in heat] for base in (1.0, 0.2)]
    (drift,) = drifts([record(samples) for samples in cases])
    assert (drift.test, drift.turns) == ("prefill", 7)
    assert drift.chance == pytest.approx(2 / math.factorial(7))
    # Of logarithms: from 1 to 1.3 by the median slope, 30 % within its bend.
    assert drift.change == pytest.approx(0.3, abs=0.02)
    (sentence,) = drift_sentences([drift])
    assert "times rose by" in sentence and "heat" in sentence
    (back,) = drifts([record(samples[::-1]) for samples in cases])
    assert back.change == pytest.approx(1 / (1 + drift.change) - 1) and "times fell" in drift_sentences([back])[0]


def test_steady_runs_are_not_worth_a_word() -> None:
    steady = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0]
    (drift,) = drifts([record(steady, others=0.01)])
    assert drift_sentences([drift]) == () and disturbed_by([drift]) is None and not drift.trend


def test_other_work_is_told_and_too_much_of_it_forbids_verdicts() -> None:
    found = drifts([record([1.0] * 5, others=0.2), record([1.0] * 5, others=0.5, test="decode")])
    (sentence,) = drift_sentences(found)
    assert sentence.startswith("Other processes had the processor: 20% during prefill, 50% during decode")
    assert disturbed_by(found[:1]) is None and disturbed_by(found) == 0.5


def test_noise_is_told_once_a_test() -> None:
    found = drifts([record([1.0, 2.0, 1.0, 2.0, 3.0], run=run) for run in ("a", "b")])
    assert len(found) == 2
    (sentence,) = drift_sentences(found)
    assert sentence.startswith("Times scatter: prefill by")


def test_a_single_turn_drifts_nowhere_but_tells_of_others() -> None:
    (drift,) = drifts([record([1.0], others=0.9)])
    assert (drift.change, drift.chance, drift.noise) == (0.0, 1.0, 0.0) and not drift.trend
    assert disturbed_by([drift]) == 0.9 and "90% during prefill" in drift_sentences([drift])[0]
