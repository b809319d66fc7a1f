"""Whether what the paper found on its phone holds on this machine: said only where the intervals allow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from stages.measure.paired import CONFIDENCE, PairedRatio, fastest, paired_ratio

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, looked at here.

    Attributes:
        claim: what the paper found.
        section: where.
        verdict: whether it holds here.
        sentence: the same in words, with the figures.
        ratios: how many times as fast what the claim favours is than each alternative.
    """

    claim: str
    section: str
    verdict: Verdict
    sentence: str
    ratios: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return asdict(self)


def fastest_finding(
    claim: str, section: str, times: Mapping[int, Sequence[float]], claimed: int, name: Callable[[int], str]
) -> Finding:
    """Whether one setting is the fastest of all.

    Each alternative's interval is widened so that all of them together hold with 95 % (Bonferroni).

    Args:
        claim: what the paper found.
        section: where.
        times: seconds of each turn, by setting.
        claimed: the setting that was fastest there.
        name: a setting in words.
    """
    others = [setting for setting in times if setting != claimed]
    if claimed not in times or not others:
        measured = ", ".join(name(setting) for setting in times) or "nothing"
        sentence = f"Whether {claim} cannot be said here: {measured} was measured."
        return Finding(claim, section, "undecided", sentence)
    confidence = 1 - (1 - CONFIDENCE) / len(others)
    ratios = {other: paired_ratio(times[claimed], times[other], confidence) for other in others}
    sure = all(ratio.coverage >= confidence for ratio in ratios.values())
    best = fastest(times)
    rival = best if best != claimed else min(others, key=lambda other: ratios[other].median)
    beaten = [other for other, ratio in ratios.items() if ratio.high < 1]
    said = "; ".join(f"{interval(ratio)} times as fast as {name(other)}" for other, ratio in ratios.items())
    shown = f"{name(claimed)}: {said}"
    plain = {name(other): ratio.as_dict() for other, ratio in ratios.items()}
    if sure and beaten:
        quickest = min(beaten, key=lambda other: ratios[other].median)
        sentence = f"The paper's finding does not hold here: {name(quickest)} is faster. {_begin(shown)}."
        return Finding(claim, section, "does not hold", sentence, plain)
    if sure and all(ratio.low > 1 for ratio in ratios.values()):
        return Finding(claim, section, "holds", f"The paper's finding holds here. {_begin(shown)}.", plain)
    why = (
        f"{name(claimed)} and {name(rival)} are too close"
        if sure
        else _too_few(min(ratio.pairs for ratio in ratios.values()))
    )
    sentence = f"The paper's finding can neither be confirmed nor refuted here: {why}. {_begin(shown)}."
    return Finding(claim, section, "undecided", sentence, plain)


def gain_finding(
    claim: str, section: str, subject: Sequence[float], other: Sequence[float], names: tuple[str, str]
) -> Finding:
    """Whether one way is faster than another.

    Args:
        claim: what the paper found.
        section: where.
        subject: seconds of each turn of what should be faster.
        other: those of the alternative.
        names: of both.
    """
    ratio = paired_ratio(subject, other)
    shown = f"{names[0]} is {interval(ratio)} times as fast as {names[1]}"
    plain = {names[1]: ratio.as_dict()}
    if ratio.coverage < CONFIDENCE:
        sentence = f"{_begin(_too_few(ratio.pairs))}: {shown}."
        return Finding(claim, section, "undecided", sentence, plain)
    if ratio.low > 1:
        return Finding(claim, section, "holds", f"The paper's finding holds here: {shown}.", plain)
    if ratio.high < 1:
        return Finding(claim, section, "does not hold", f"The paper's finding does not hold here: {shown}.", plain)
    return Finding(claim, section, "undecided", f"No gain is shown here: {shown}.", plain)


def withheld(finding: Finding, others: float) -> Finding:
    """A finding whose measurement other work disturbed too much to say anything.

    Args:
        finding: what the intervals allow.
        others: share of the processor that others had.
    """
    if finding.verdict == "undecided":
        return finding
    said = (
        f"Nothing is said of the paper's finding: other processes had {others:.0%} of the processor, and what waits "
        f"for its threads suffers more than its rival. As measured: {finding.sentence}"
    )
    return replace(finding, verdict="undecided", sentence=said)


def interval(ratio: PairedRatio) -> str:
    """A ratio with its interval: 1.20 [1.10, 1.31]."""
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _too_few(runs: int) -> str:
    return f"too few runs to be sure ({runs}; take --runs 8)"


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]
