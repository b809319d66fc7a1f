"""Whose turn it is: which family draws picture number n, by weights, exactly and without chance."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

# Weights are taken to this precision, so that the order repeats soon.
_PARTS = 100


def order(weights: Mapping[str, float]) -> tuple[str, ...]:
    """One round of turns: each name as often as its weight says, spread evenly; equal weights simply take turns.

    After n pictures each name has had its share of them, to within one or two.
    """
    return _order(tuple(weights.items()))


@functools.cache
def _order(weights: tuple[tuple[str, float], ...]) -> tuple[str, ...]:
    turns = {name: max(1, round(weight * _PARTS)) for name, weight in weights}
    common = math.gcd(*turns.values())
    turns = {name: count // common for name, count in turns.items()}
    total = sum(turns.values())
    credit = dict.fromkeys(turns, 0)
    found = []
    for _ in range(total):
        for name, count in turns.items():
            credit[name] += count
        name = max(credit, key=lambda name: credit[name])
        credit[name] -= total
        found.append(name)
    return tuple(found)
