"""How sure a mean score is, and whether one model's is higher than another's.

Questions about one picture are not independent, so whole pictures are drawn, not questions (cluster bootstrap: Davison
and Hinkley 1997, Sec. 3.8; percentiles). The paired test turns the sign of each picture's difference at random.

Drawing pictures shows no failure that none of them had: where all agree, the drawn interval is 100 – 100 %, however few
they are. So where fewer than `FEW` pictures stand apart, bounds are at least as wide as Wilson's for as many questions
as there are pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluate.metrics import Interval, wilson

DRAWS = 10_000
_LEVEL = 0.95
# From so many pictures on that are not all right (or not all wrong), drawing tells what they are worth.
FEW = 10
# Draws held in memory at once.
_BLOCK = 500

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """First model's mean score less the second's.

    Attributes:
        questions, pictures: how many were compared.
        mean: the difference.
        interval: of it, 95 %.
        p_value: how often differences as large come up if neither model is better.
        better, worse: questions where the first scored more, or less.
    """

    questions: int
    pictures: int
    mean: float
    interval: Interval
    p_value: float
    better: int
    worse: int

    @property
    def verdict(self) -> str:
        """In words; "no difference shown" unless the interval excludes 0."""
        if self.interval.low > 0:
            return "higher"
        return "lower" if self.interval.high < 0 else "no difference shown"


def mean_interval(scores: Sequence[float], groups: Sequence[str], seed: int = 0, draws: int = DRAWS) -> Interval:
    """95 % interval of the mean of scores 0 … 1.

    Args:
        scores: one a question.
        groups: the picture (or whatever belongs together) of each.
        seed: of the draws.
        draws: how many.

    Raises:
        ValueError: lengths differ, or there is no question.
    """
    sums, counts = by_group(scores, groups)
    return share_interval(percentiles(_drawn_means(sums, counts, seed, draws)), sums, counts)


def compare_scores(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> Difference:
    """Two models on the same questions, in the same order.

    Raises:
        ValueError: lengths differ, or there is no question.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    sums, counts = by_group(differences, groups)
    mean = float(sums.sum() / counts.sum())
    rng = np.random.default_rng(seed)
    reached = 0
    for start in range(0, draws, _BLOCK):
        signs = rng.choice((-1.0, 1.0), (min(_BLOCK, draws - start), len(sums)))  # [draws, groups]
        # A hair below: sums that are equal but for rounding are equal.
        reached += int((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum())
    return Difference(
        questions=len(differences),
        pictures=len(sums),
        mean=mean,
        interval=difference_interval(percentiles(_drawn_means(sums, counts, seed, draws)), sums, counts),
        p_value=(reached + 1) / (draws + 1),
        better=sum(value > 0 for value in differences),
        worse=sum(value < 0 for value in differences),
    )


def ratio_difference(
    first: Sequence[float],
    second: Sequence[float],
    counts: Sequence[float],
    groups: Sequence[str],
    seed: int = 0,
    draws: int = DRAWS,
    *,
    share: bool = False,
) -> tuple[float, Interval]:
    """Σ first / Σ counts less Σ second / Σ counts, paired, with its 95 % interval.

    Args:
        first, second: sums of each question, in the same order.
        counts: what they are sums over: tokens of each question, say.
        groups: as in `mean_interval`.
        seed, draws: as there.
        share: both ratios are shares, so that the interval may lack what no picture showed.

    Raises:
        ValueError: lengths differ, or there is no question.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    sums, totals = by_group(differences, groups, counts)
    interval = percentiles(_drawn_means(sums, totals, seed, draws))
    if share:
        interval = difference_interval(interval, sums, totals)
    return float(sums.sum() / totals.sum()), interval


def share_interval(drawn: Interval, sums: Floats, counts: Floats) -> Interval:
    """The interval of a share, honest also where it is near 0 or 1.

    Args:
        drawn: by drawing groups.
        sums, counts: of each group: what is right, of how many.
    """
    pictures = len(sums)
    by_wilson = wilson(float(sums.sum() / counts.sum()) * pictures, pictures)
    low = min(drawn.low, by_wilson.low) if (sums < counts).sum() < FEW else drawn.low
    high = max(drawn.high, by_wilson.high) if (sums > 0).sum() < FEW else drawn.high
    return Interval(low, high)


def difference_interval(drawn: Interval, sums: Floats, counts: Floats) -> Interval:
    """The interval of a paired difference of shares, honest also where hardly any picture tells the two apart.

    Args:
        drawn: by drawing groups.
        sums, counts: of each group: the difference of what is right, of how many.
    """
    pictures = len(sums)
    if (sums != 0).sum() >= FEW:
        return drawn
    won, lost = (float(np.maximum(side, 0).sum() / counts.sum()) for side in (sums, -sums))
    low = won - wilson(lost * pictures, pictures).high
    high = wilson(won * pictures, pictures).high - lost
    return Interval(min(drawn.low, low), max(drawn.high, high))


def by_group(
    values: Sequence[float], groups: Sequence[str], counts: Sequence[float] | None = None
) -> tuple[Floats, Floats]:
    """Sums of values and of counts (1 each where none are given) of each group, in the order of the groups' first.

    Raises:
        ValueError: lengths differ, or there is nothing.
    """
    if len(values) != len(groups) or not len(values):
        raise ValueError(f"{len(values)} scores and {len(groups)} groups")
    place = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    where = np.array([place[name] for name in groups])
    each = np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    sums, totals = (np.bincount(where, np.asarray(part, np.float64), len(place)) for part in (values, each))
    return sums.astype(np.float64), totals.astype(np.float64)


def _drawn_means(sums: Floats, counts: Floats, seed: int, draws: int) -> Floats:
    """Means of as many groups as there are, drawn with replacement, [draws]."""
    rng, size = np.random.default_rng(seed), len(sums)
    means = []
    for start in range(0, draws, _BLOCK):
        times = rng.multinomial(size, np.full(size, 1 / size), min(_BLOCK, draws - start))  # [draws, groups]
        means.append((times @ sums) / (times @ counts))
    return np.concatenate(means)


def percentiles(means: Floats) -> Interval:
    """The 95 % that lie in the middle of drawn means."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))
