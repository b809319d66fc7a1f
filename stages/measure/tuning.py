"""Choosing settings for a machine: the runtime's own stays unless another is faster beyond doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stages.measure.findings import interval
from stages.measure.paired import CONFIDENCE, PairedRatio, paired_ratio, unpaired_ratio


class Runs(NamedTuple):
    """Seconds of each run of one candidate, and the id of the run it was in: what shares one ran in turns."""

    seconds: Sequence[float]
    run: str | None


@dataclass(frozen=True)
class Choice:
    """One setting.

    Attributes:
        value: what is chosen.
        kept: whether it is what the runtime does anyway.
        reason: why, in words.
    """

    value: int
    kept: bool
    reason: str


def choose(
    runs: Mapping[int, Runs], default: int, name: Callable[[int], str], others_share: float | None = None
) -> Choice:
    """The candidate that is fastest beyond doubt, or the default.

    Each interval is widened so that all of them together hold with 95 % (Bonferroni).

    Args:
        runs: of each candidate, the default among them.
        default: what the runtime does anyway.
        name: a candidate in words.
        others_share: of the processor that other work had, where that was too much to choose anything.
    """
    others = [value for value in runs if value != default]
    if not others:
        return Choice(default, True, f"{_begin(name(default))}: nothing else was tried.")
    if others_share is not None:
        reason = f"{_begin(name(default))} as before: other processes had {others_share:.0%} of the processor."
        return Choice(default, True, reason)
    confidence = 1 - (1 - CONFIDENCE) / len(others)
    ratios = {value: ratio_of(runs[value], runs[default], confidence) for value in others}
    surer = {value: ratio for value, ratio in ratios.items() if ratio.low > 1 and ratio.coverage >= confidence}
    if surer:
        best = max(surer, key=lambda value: surer[value].median)
        reason = f"{_begin(name(best))}: {interval(surer[best])} times as fast as {name(default)}."
        return Choice(best, False, reason)
    near = max(ratios, key=lambda value: ratios[value].median)
    few = " (too few runs to be sure)" if ratios[near].coverage < confidence else ""
    reason = f"{_begin(name(default))} as before: {name(near)} is {interval(ratios[near])} times as fast{few}."
    return Choice(default, True, reason)


def ratio_of(subject: Runs, other: Runs, confidence: float = CONFIDENCE) -> PairedRatio:
    """How many times as fast the subject is: paired where both ran in turns."""
    paired = subject.run is not None and subject.run == other.run and len(subject.seconds) == len(other.seconds)
    return (paired_ratio if paired else unpaired_ratio)(subject.seconds, other.seconds, confidence)


def thread_candidates(cores: int) -> tuple[int, ...]:
    """All cores, half of them, one: what helps where cores share a bus, or are not real ones."""
    return tuple(dict.fromkeys((cores, max(1, cores // 2), 1)))


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]
