"""Where samples lie and how far they scatter."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean, sample standard deviation (n - 1; 0 for a single sample) and median, in the unit of the samples."""

    mean: float
    stddev: float
    median: float


def spread_of(samples: Sequence[float]) -> Spread:
    """Summarises samples.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError("no samples to summarise")
    deviation = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Spread(statistics.fmean(samples), deviation, statistics.median(samples))
