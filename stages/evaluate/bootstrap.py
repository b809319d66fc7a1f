"""How sure a mean score is, and whether one model's is higher than another's.

Questions about one picture are not independent, so whole pictures are drawn, not questions (cluster bootstrap: Davison
and Hinkley 1997, Sec. 3.8; percentiles). The paired test turns the sign of each picture's difference at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.evaluate.metrics import Interval

DRAWS = 10_000
_LEVEL = 0.95
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
    """95 % interval of the mean score.

    Args:
        scores: one a question.
        groups: the picture (or whatever belongs together) of each.
        seed: of the draws.
        draws: how many.

    Raises:
        ValueError: lengths differ, or there is no question.
    """
    sums, counts = _by_group(scores, groups)
    return _percentiles(_drawn_means(sums, counts, seed, draws))


def compare_scores(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> Difference:
    """Two models on the same questions, in the same order.

    Raises:
        ValueError: lengths differ, or there is no question.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    sums, counts = _by_group(differences, groups)
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
        interval=_percentiles(_drawn_means(sums, counts, seed, draws)),
        p_value=(reached + 1) / (draws + 1),
        better=sum(value > 0 for value in differences),
        worse=sum(value < 0 for value in differences),
    )


def _by_group(scores: Sequence[float], groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum of scores and number of questions of each group."""
    if len(scores) != len(groups) or not scores:
        raise ValueError(f"{len(scores)} scores and {len(groups)} groups")
    place = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    where = np.array([place[name] for name in groups])
    sums = np.bincount(where, weights=np.asarray(scores, np.float64), minlength=len(place))
    return sums.astype(np.float64), np.bincount(where, minlength=len(place)).astype(np.float64)


def _drawn_means(sums: Floats, counts: Floats, seed: int, draws: int) -> Floats:
    """Means of as many groups as there are, drawn with replacement, [draws]."""
    rng, size = np.random.default_rng(seed), len(sums)
    means = []
    for start in range(0, draws, _BLOCK):
        times = rng.multinomial(size, np.full(size, 1 / size), min(_BLOCK, draws - start))  # [draws, groups]
        means.append((times @ sums) / (times @ counts))
    return np.concatenate(means)


def _percentiles(means: Floats) -> Interval:
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))
