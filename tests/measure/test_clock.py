"""Cases are run in turns, and warm-up turns are marked."""

from __future__ import annotations

import pytest

from stages.measure.clock import interleaved, stopwatch


def test_cases_alternate_and_warm_up_does_not_count() -> None:
    order: list[str] = []

    def case(name: str) -> dict[str, float]:
        order.append(name)
        return {name: 1.0}

    laps = list(interleaved({"a": lambda: case("a"), "b": lambda: case("b")}, warmup=1, runs=2))
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [(lap.case, lap.turn, lap.counts) for lap in laps] == [
        ("a", -1, False),
        ("b", -1, False),
        ("a", 0, True),
        ("b", 0, True),
        ("a", 1, True),
        ("b", 1, True),
    ]
    assert [dict(lap.seconds) for lap in laps[:2]] == [{"a": 1.0}, {"b": 1.0}]


def test_a_lap_is_given_as_soon_as_it_is_run() -> None:
    ran: list[int] = []

    def case() -> dict[str, float]:
        ran.append(1)
        return {}

    laps = interleaved({"only": case}, warmup=0, runs=3)
    next(laps)
    assert len(ran) == 1


def test_the_stopwatch_stops_where_the_block_raises() -> None:
    with pytest.raises(KeyError), stopwatch() as watch:
        raise KeyError
    assert watch.seconds > 0
