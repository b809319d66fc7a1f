"""Timing: a stopwatch, and cases run in turns.

The cases of one comparison are interleaved (A-B-A-B, after warm-up rounds that are thrown away): on a machine that
other work shares, or that gets warmer, running all of A before all of B would measure the machine's mood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Stopwatch:
    """Seconds of a `with stopwatch()` block; 0 until it ends."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Times a block by the monotonic clock of highest resolution, also when it raises."""
    watch = Stopwatch()
    started = time.perf_counter()
    try:
        yield watch
    finally:
        watch.seconds = time.perf_counter() - started


@dataclass(frozen=True)
class Lap(Generic[Key]):
    """One run of one case. `turn` counts from 0; warm-up turns are negative.

    `seconds` holds one time for each part of the case that was timed.
    """

    case: Key
    turn: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether this lap is a measurement rather than warm-up."""
        return self.turn >= 0


def interleaved(
    cases: Mapping[Key, Callable[[], Mapping[str, float]]], *, warmup: int, runs: int
) -> Iterator[Lap[Key]]:
    """Runs every case once a turn, in the given order, for `warmup` turns that don't count and `runs` that do.

    Args:
        cases: what to run; each call gives the seconds of its parts by name.
        warmup: turns whose laps don't count.
        runs: turns whose laps count.
    """
    for turn in range(-warmup, runs):
        for case, action in cases.items():
            yield Lap(case, turn, action())
