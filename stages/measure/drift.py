"""Whether the machine changed while something was measured: a trend over the turns, noise, other work.

A machine that gets warmer slows down from turn to turn; every case of a turn sees it, so the cases of one test are
looked at together. Whether a trend is one is judged by ranks alone (Mann and Kendall), how large it is by the median
slope (Theil and Sen). Ratios of cases measured in turns survive all this; times do not.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.measure.records import Record

# A trend is told where chance makes one as clear this rarely, and times changed by this much.
CHANCE, CHANGE = 0.02, 0.05
# So much scatter around the trend makes times hard to compare, so much foreign work too.
NOISE, OTHERS = 0.10, 0.10
# With so much foreign work even ratios say little: what waits actively for its threads suffers far more.
TOO_MUCH = 0.25
# Up to so many turns all orders are counted; that grows with the fourth power of the turns.
COUNTED = 50


@dataclass(frozen=True)
class Drift:
    """What happened over the turns of one test.

    Attributes:
        test: which test.
        turns: how many.
        change: of times from the first turn to the last, as a share; 0.1 is 10 % slower.
        chance: how often mere chance makes a trend as clear.
        noise: typical distance of a turn from the median of all (median absolute deviation), as a share.
        others: median share of the processor that others had; None where that is not known.
    """

    test: str
    turns: int
    change: float
    chance: float
    noise: float
    others: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return asdict(self)

    @property
    def trend(self) -> bool:
        """Whether the machine got slower or faster, beyond what chance does."""
        return self.chance <= CHANCE and abs(self.change) >= CHANGE


def disturbed_by(found: Sequence[Drift]) -> float | None:
    """The share that others had in the most disturbed test, where that was too much for any verdict."""
    shares = [drift.others for drift in found if drift.others is not None and drift.others > TOO_MUCH]
    return max(shares, default=None)


def drift_sentences(found: Sequence[Drift]) -> tuple[str, ...]:
    """What is worth telling of all tests of a bench; nothing of a quiet one."""
    told = [_trend(drift) for drift in found if drift.trend]
    noisy = _worst((drift.test, drift.noise) for drift in found if drift.noise > NOISE)
    if noisy:
        said = ", ".join(f"{test} by {noise:.0%}" for test, noise in noisy.items())
        told.append(f"Times scatter: {said}. Take more --runs, or a quieter machine.")
    shared = _worst((one.test, one.others) for one in found if one.others is not None and one.others > OTHERS)
    if shared:
        said = ", ".join(f"{share:.0%} during {test}" for test, share in shared.items())
        told.append(f"Other processes had the processor: {said}. Take ratios, not times.")
    return tuple(told)


def _worst(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The largest value of each test: a bench may have run it several times."""
    found: dict[str, float] = {}
    for test, value in values:
        found[test] = max(found.get(test, 0.0), value)
    return found


def _trend(drift: Drift) -> str:
    slower = drift.change > 0
    cause = "heat or other work slowed this machine down" if slower else "the machine was still waking up"
    return (
        f"{drift.test}: times {'rose' if slower else 'fell'} by {abs(drift.change):.0%} over {drift.turns} turns "
        f"(chance does that in {drift.chance:.1%} of runs): {cause}. Ratios of one turn hold, times don't."
    )


def drifts(records: Iterable[Record]) -> tuple[Drift, ...]:
    """One for each test, all its cases together; each run by itself. A single turn only tells of other work."""
    groups: dict[tuple[str | None, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.run, record.test, len(record.samples_s)), []).append(record)
    return tuple(_drift(test, group) for (_, test, _), group in groups.items())


def _drift(test: str, records: Sequence[Record]) -> Drift:
    # A turn's pace: the median over its cases of time over that case's own median.
    relative = [[sample / record.seconds for sample in record.samples_s] for record in records]
    paces = [statistics.median(turn) for turn in zip(*relative, strict=True)]
    # Of logarithms, so that twice as slow and twice as fast are as far from no change.
    steady = slope([math.log(pace) for pace in paces]) if len(paces) > 1 else 0.0
    others = [share for record in records for share in record.samples_others or () if share is not None]
    return Drift(
        test=test,
        turns=len(paces),
        change=math.expm1(steady * (len(paces) - 1)),
        chance=chance_of_trend(paces),
        noise=statistics.median(abs(pace - statistics.median(paces)) for pace in paces) / statistics.median(paces),
        others=statistics.median(others) if others else None,
    )


def slope(values: Sequence[float]) -> float:
    """The median slope over all pairs (Theil and Sen), per step."""
    pairs = itertools.combinations(enumerate(values), 2)
    return statistics.median((later - earlier) / (j - i) for (i, earlier), (j, later) in pairs)


def chance_of_trend(values: Sequence[float]) -> float:
    """How likely a random order of as many values has a trend at least as clear, up or down (Mann and Kendall).

    Exact up to `COUNTED` values, normal beyond.
    """
    pairs = list(itertools.combinations(values, 2))
    falls, rises = sum(later < earlier for earlier, later in pairs), sum(later > earlier for earlier, later in pairs)
    return (counted_chance if len(values) <= COUNTED else normal_chance)(values, falls, rises)


def counted_chance(values: Sequence[float], falls: int, rises: int) -> float:
    """The share of all orders with a trend as clear; equal values speak for neither side."""
    count = len(values)
    fewest = min(falls, rises) + (count * (count - 1) // 2 - falls - rises) // 2
    ways = [1]
    for length in range(2, count + 1):
        ways = [sum(ways[max(0, n - length + 1) : n + 1]) for n in range(len(ways) + length - 1)]
    return min(1.0, 2 * sum(ways[: fewest + 1]) / math.factorial(count))


def normal_chance(values: Sequence[float], falls: int, rises: int) -> float:
    """The same by the normal distribution, with the correction for steps of one and that for equal values.

    Source: Kendall, Rank Correlation Methods, 4th ed., chapter 4.
    """

    def spread(count: int) -> int:
        return count * (count - 1) * (2 * count + 5)

    variance = (spread(len(values)) - sum(spread(times) for times in Counter(values).values())) / 18
    # A pair that changes sides moves the difference by two.
    beyond = abs(rises - falls) - 1
    return 1.0 if beyond <= 0 else math.erfc(beyond / math.sqrt(2 * variance))
