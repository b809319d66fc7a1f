"""How much faster one thing is than another, from runs in turns: the ratio of each turn, and what they say together.

A shared machine is sometimes slow for seconds. Two runs of one turn lie next to each other and suffer alike, so their
ratio keeps what their times lose; the median of the ratios is then the answer, and order statistics bound it without
assuming how ratios scatter. Runs that were not in turns are compared all with all (Hodges and Lehmann), bounded by the
exact distribution of Mann and Whitney's count.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

CONFIDENCE = 0.95
Name = TypeVar("Name")


class PairedRatio(NamedTuple):
    """The ratios of all pairs in short.

    Attributes:
        median: of the ratios; 2 where the subject took half the time.
        low, high: the interval of the true median.
        coverage: how sure the interval is; below what was asked for where there were too few pairs to be surer.
        pairs: how many ratios.
    """

    median: float
    low: float
    high: float
    coverage: float
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return self._asdict()


def paired_ratio(subject: Sequence[float], other: Sequence[float], confidence: float = CONFIDENCE) -> PairedRatio:
    """How many times as fast the subject is: other's time divided by the subject's, turn by turn.

    Args:
        subject: seconds of each turn, above 0.
        other: seconds of the same turns.
        confidence: what the interval should reach.

    Raises:
        ValueError: no pairs, another number of them on both sides, or a time that is not above 0.
    """
    if len(subject) != len(other) or not subject:
        raise ValueError(f"{len(subject)} and {len(other)} times make no pairs")
    if min(*subject, *other) <= 0:
        raise ValueError(f"a time of {min(*subject, *other)} s has no ratio")
    ratios = sorted(theirs / ours for ours, theirs in zip(subject, other, strict=True))
    rank = interval_rank(len(ratios), confidence)
    return PairedRatio(
        median=statistics.median(ratios),
        low=ratios[rank],
        high=ratios[-1 - rank],
        coverage=interval_coverage(len(ratios), rank),
        pairs=len(ratios),
    )


def unpaired_ratio(subject: Sequence[float], other: Sequence[float], confidence: float = CONFIDENCE) -> PairedRatio:
    """How many times as fast the subject is, from runs that have no turns in common: the median over all pairs.

    Args:
        subject: seconds of its runs, above 0.
        other: seconds of the other's runs, as many or not.
        confidence: what the interval should reach.

    Raises:
        ValueError: no runs on one side, or a time that is not above 0.
    """
    if not subject or not other:
        raise ValueError(f"{len(subject)} and {len(other)} times make no ratio")
    if min(*subject, *other) <= 0:
        raise ValueError(f"a time of {min(*subject, *other)} s has no ratio")
    ratios = sorted(theirs / ours for ours, theirs in itertools.product(subject, other))
    below = list(itertools.accumulate(rank_sums(len(subject), len(other))))
    total = math.comb(len(subject) + len(other), len(other))
    rank = 0
    while 2 * (rank + 1) < len(ratios) and 1 - 2 * below[rank + 1] / total >= confidence:
        rank += 1
    coverage = 1 - 2 * below[rank] / total
    return PairedRatio(statistics.median(ratios), ratios[rank], ratios[-1 - rank], max(0.0, coverage), len(ratios))


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Where the true median lies: as sure as asked for, or from the smallest to the largest of too few samples.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError("no samples to bound")
    ranked = sorted(samples)
    rank = interval_rank(len(ranked), confidence)
    return ranked[rank], ranked[-1 - rank]


def rank_sums(first: int, second: int) -> list[int]:
    """In how many orders of two groups' members u pairs stand the wrong way round, for u from 0 on."""
    # counts[n][u] for `m` of the first group and n of the second, built up member by member.
    counts = [[1] for _ in range(second + 1)]
    for m in range(1, first + 1):
        row = [[1]]
        for n in range(1, second + 1):
            # The largest of all belongs to the first group (behind n others) or to the second.
            largest = [0] * n + counts[n]
            rest = row[n - 1] + [0] * (len(largest) - len(row[n - 1]))
            row.append([a + b for a, b in zip(largest, rest, strict=True)])
        counts = row
        assert len(counts[-1]) == m * second + 1
    return counts[-1]


def interval_rank(count: int, confidence: float) -> int:
    """The largest rank from both ends (0: smallest and largest) whose interval of the median reaches a confidence.

    0 as well where not even the whole range does.
    """
    rank = 0
    while 2 * (rank + 1) < count and interval_coverage(count, rank + 1) >= confidence:
        rank += 1
    return rank


def interval_coverage(count: int, rank: int) -> float:
    """How likely the true median lies between the sorted samples `rank` and `count - 1 - rank`.

    It lies outside where at most `rank` of the samples fall on one side of it, each of them a fair coin.
    """
    return 1 - 2 * sum(math.comb(count, heads) for heads in range(rank + 1)) / 2**count


def fastest(times: Mapping[Name, Sequence[float]]) -> Name:
    """Whose median time is smallest; the first of equals.

    Raises:
        ValueError: nobody was measured, or somebody has no times.
    """
    if not times or not all(times.values()):
        raise ValueError("nobody to compare")
    return min(times, key=lambda name: statistics.median(times[name]))
