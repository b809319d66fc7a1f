"""Families take turns by their weights, exactly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stages.workshop.corpus.rendering.schedule import order


@given(st.integers(1, 9))
def test_equal_weights_take_turns(count: int) -> None:
    names = [f"f{index}" for index in range(count)]
    assert order(dict.fromkeys(names, 0.7)) == tuple(names)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=1))
def test_everyone_has_their_share_at_any_time(weights: dict[str, int]) -> None:
    turns, total = order({name: weight / 4 for name, weight in weights.items()}), sum(weights.values())
    seen: Counter[str] = Counter()
    for number, name in enumerate(turns, start=1):
        seen[name] += 1
        assert all(abs(seen[name] - number * weight / total) < 2 for name, weight in weights.items())
    assert all(seen[name] * total == len(turns) * weight for name, weight in weights.items())


def test_tiny_weights_still_have_a_turn() -> None:
    assert Counter(order({"a": 1.0, "b": 1e-9})) == {"a": 100, "b": 1}


def test_odd_weights_have_a_short_round() -> None:
    """Weights without a common measure: one round of exact fractions would be longer than any set."""
    weights = {str(index): 1 / prime for index, prime in enumerate((3, 7, 11, 13, 17, 19, 23, 29, 31, 37))}
    turns = order(weights)
    assert len(turns) <= 100 * len(weights)
    total = sum(weights.values())
    shares = Counter(turns)
    assert all(abs(shares[name] / len(turns) - weight / total) < 0.01 for name, weight in weights.items())
