"""Two benches, or the settings of one, compared: paired where they ran in turns, a verdict only where one is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stages.measure.bench_charts import label_of
from stages.measure.drift import Drift, disturbed_by, drift_sentences, drifts
from stages.measure.findings import interval
from stages.measure.paired import CONFIDENCE, PairedRatio, paired_ratio, unpaired_ratio
from stages.measure.records import Record

# What makes two records the same test under the same setting.
_SAME = ("test", "policy", "chunk", "tiles_per_batch", "tiles", "pipeline", "n_prompt", "n_gen", "kv", "cached")
# What makes them the same work: settings may differ.
_WORK = ("test", "tiles", "n_prompt", "n_gen")
# What tells records of one bench apart where it ran with several: tune with threads, table5 beside a peer.
_APART = ("engine", "model", "threads")
# What else may explain a difference: told, not matched.
_AROUND: dict[str, Callable[[Record], Any]] = {
    "model": lambda one: one.model,
    "engine": lambda one: one.engine,
    "threads": lambda one: one.threads,
    "machine": lambda one: None if one.machine is None else one.machine.get("cpu"),
    "cores": lambda one: None if one.machine is None else one.machine.get("cores"),
    "onnxruntime": lambda one: None if one.versions is None else one.versions.get("onnxruntime"),
}

Verdict = Literal["faster", "slower", "no difference shown", "nothing can be said"]


@dataclass(frozen=True)
class Compared:
    """One test, measured twice.

    Attributes:
        test: which.
        first, second: the setting of each.
        ratio: how many times as fast the second is.
        paired: whether both ran in the same turns.
        verdict: of the second.
        why: why no more can be said; empty where the interval decides.
    """

    test: str
    first: str
    second: str
    ratio: PairedRatio
    paired: bool
    verdict: Verdict
    why: str

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {**asdict(self), "ratio": self.ratio.as_dict()}

    def sentence(self) -> str:
        """The same in words."""
        said = f"{self.test}: {self.second} is {interval(self.ratio)} times as fast as {self.first}: {self.verdict}"
        return f"{said} ({self.why})." if self.why else f"{said}."


@dataclass(frozen=True)
class Comparison:
    """All tests of both, and what to know before they are used."""

    rows: tuple[Compared, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return {"rows": [row.as_dict() for row in self.rows], "warnings": list(self.warnings)}


def compare_benches(first: Sequence[Record], second: Sequence[Record]) -> Comparison:
    """The second bench against the first, test by test under the same settings."""
    names = (*_SAME, *(name for name in _APART if any(_tells_apart(name, records) for records in (first, second))))
    mine = {_key(one, names): one for one in first}
    theirs = {_key(one, names): one for one in second}
    drifted = (*drifts(first), *drifts(second))
    pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
    warnings = [*_around(pairs), *drift_sentences(drifted)]
    again = len(first) + len(second) - len(mine) - len(theirs)
    if again:
        warnings.append(f"{again} records are left out: their settings were measured again later.")
    for name, here, there in (("first", mine, theirs), ("second", theirs, mine)):
        alone = [f"{one.test} {label_of(one)}" for key, one in here.items() if key not in there]
        if alone:
            warnings.append(f"Only in the {name}: {'; '.join(alone)}.")
    if any(not _in_turns(*pair) for pair in pairs):
        warnings.append(
            "The two were not measured in turns: what changed on this machine between them counts as a difference."
        )
    rows = tuple(_compared(a, b, drifted, (f"first: {label_of(a)}", f"second: {label_of(b)}")) for a, b in pairs)
    return Comparison(rows, tuple(warnings))


def compare_settings(records: Sequence[Record]) -> Comparison:
    """The settings of one bench that do the same work, each against the first of them."""
    drifted = drifts(records)
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for one in records:
        groups.setdefault(_key(one, _WORK), []).append(one)
    rows = [
        _compared(group[0], other, drifted, (names[0], name))
        for group in groups.values()
        for names in [_apart([label_of(one) for one in group])]
        for other, name in zip(group[1:], names[1:], strict=True)
    ]
    return Comparison(tuple(rows), drift_sentences(drifted))


def _compared(first: Record, second: Record, drifted: Sequence[Drift], names: tuple[str, str]) -> Compared:
    paired = _in_turns(first, second)
    ratio = (paired_ratio if paired else unpaired_ratio)(second.samples_s, first.samples_s)
    verdict, why = _verdict(ratio, [one for one in drifted if one.test == first.test], paired)
    return Compared(first.test, *names, ratio, paired, verdict, why)


def _verdict(ratio: PairedRatio, drifted: Sequence[Drift], paired: bool) -> tuple[Verdict, str]:
    if ratio.coverage < CONFIDENCE:
        return "nothing can be said", f"so few runs bound it with {ratio.coverage:.0%} only; take --runs 6 or more"
    if (others := disturbed_by(drifted)) is not None:
        return "nothing can be said", f"other processes had {others:.0%} of the processor"
    if not paired and (trend := next((one for one in drifted if one.trend), None)) is not None:
        return "nothing can be said", f"times changed by {trend.change:+.0%} within one of them"
    if ratio.low <= 1 <= ratio.high:
        return "no difference shown", ""
    return ("faster" if ratio.low > 1 else "slower"), ""


def _apart(labels: Sequence[str]) -> list[str]:
    """Labels without the parts that all of them share."""
    parts = [label.split(", ") for label in labels]
    return [", ".join(part for part in own if not all(part in other for other in parts)) or "as it is" for own in parts]


def _in_turns(first: Record, second: Record) -> bool:
    return first.run is not None and first.run == second.run and len(first.samples_s) == len(second.samples_s)


def _key(record: Record, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


def _tells_apart(name: str, records: Sequence[Record]) -> bool:
    """Whether records that are the same test under the same setting differ in a field."""
    values: dict[tuple[Any, ...], set[Any]] = {}
    for one in records:
        values.setdefault(_key(one, _SAME), set()).add(getattr(one, name))
    return any(len(found) > 1 for found in values.values())


def _around(pairs: Sequence[tuple[Record, Record]]) -> Iterator[str]:
    """What differs beside what was measured."""
    for name, value in _AROUND.items():
        found = {(value(first), value(second)) for first, second in pairs if None not in (value(first), value(second))}
        for before, after in sorted(found, key=str):
            if before != after:
                yield f"The {name} differs: {before} and {after}."
