"""How many rows each source gives: shares, what is missing, what is too small. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stages.workshop.corpus.mixture import Mixture


@dataclass(frozen=True)
class Draw:
    """What is drawn of one source.

    Attributes:
        asked: its share of the mixture as the recipe has it, 0…1; None where it goes by rows that are unknown.
        aimed: its share after those of missing sources were given away.
        rows: how many rows it has to draw from; None where it was not given.
        wanted: how many rows its share comes to.
        drawn: how many it gives.
    """

    name: str
    category: str | None
    asked: float | None
    aimed: float
    rows: int | None
    wanted: int
    drawn: int

    @property
    def times(self) -> float:
        """How often each of its rows comes, on average."""
        return self.drawn / self.rows if self.rows else 0.0


def share_out(mixture: Mixture, rows: Mapping[str, int]) -> list[Draw]:
    """Decides how many rows each source gives.

    Args:
        mixture: what is asked for.
        rows: how many rows each source has that is given.
    """
    asked = _asked(mixture, rows)
    aimed = _renormalized(mixture, asked, rows) if mixture.renormalize else asked
    present = {name: aimed[name] or 0.0 for name in mixture.sources if name in rows}
    capacity = {name: _capacity(mixture, name, rows[name]) for name in present}
    if mixture.total == "all":
        whole = max(
            (_at_most(mixture, name, rows[name]) / share for name, share in present.items() if share), default=0
        )
        wanted = {name: max(round(whole * share), 0) for name, share in present.items()}
    else:
        wanted = _apportion(present, mixture.total)
    drawn = {name: min(count, capacity[name]) for name, count in wanted.items()}
    if mixture.fill and mixture.total != "all":
        drawn = _fill(present, capacity, drawn, mixture.total)
    return [
        Draw(
            name,
            source.category,
            asked[name],
            aimed[name] or 0.0,
            rows.get(name),
            wanted.get(name, 0),
            drawn.get(name, 0),
        )
        for name, source in mixture.sources.items()
    ]


def _asked(mixture: Mixture, rows: Mapping[str, int]) -> dict[str, float | None]:
    """Shares of the whole. Where rows decide, a source that is not given has none that could be told."""
    shares: dict[str, float | None] = {}
    of_all = sum(mixture.categories.values())
    for category, names in mixture.groups.items():
        part = mixture.categories[category] / of_all if category is not None else 1.0
        told = {name: mixture.sources[name].share for name in names}
        if any(share is None for share in told.values()):
            weights: dict[str, float | None] = {
                name: float(_at_most(mixture, name, rows[name])) if name in rows else None for name in names
            }
        else:
            weights = told
        whole = sum(weight for weight in weights.values() if weight is not None)
        for name, weight in weights.items():
            shares[name] = None if weight is None else part * weight / whole if whole else 0.0
    return shares


def _renormalized(
    mixture: Mixture, asked: Mapping[str, float | None], rows: Mapping[str, int]
) -> dict[str, float | None]:
    """Shares of what is missing, given to the others of the category; those of empty categories, to all others."""
    aimed: dict[str, float | None] = dict.fromkeys(asked, 0.0)
    for names in mixture.groups.values():
        whole = sum(asked[name] or 0.0 for name in names)
        there = {name: asked[name] or 0.0 for name in names if rows.get(name)}
        for name, share in there.items():
            aimed[name] = whole * share / sum(there.values())
    total = sum(share or 0.0 for share in aimed.values())
    return {name: (share or 0.0) / total if total else 0.0 for name, share in aimed.items()}


def _at_most(mixture: Mixture, name: str, rows: int) -> int:
    most = mixture.sources[name].most
    return rows if most is None else min(rows, most)


def _capacity(mixture: Mixture, name: str, rows: int) -> int:
    most = mixture.sources[name].most
    repeated = int(rows * mixture.repeat_of(name))
    return repeated if most is None else min(repeated, most)


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole rows by the largest remainder; together `total` times the sum of the shares."""
    exact = {name: total * share for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    left = round(sum(exact.values())) - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:left]:
        counts[name] += 1
    return counts


def _fill(
    shares: Mapping[str, float], capacity: Mapping[str, int], drawn: Mapping[str, int], total: int
) -> dict[str, int]:
    """Gives places that are left to sources with rows to spare, by their shares."""
    filled = dict(drawn)
    while (left := min(total, sum(capacity.values())) - sum(filled.values())) > 0:
        spare = {name: shares[name] for name in filled if filled[name] < capacity[name] and shares[name] > 0}
        if not spare:
            break
        part = _apportion({name: share / sum(spare.values()) for name, share in spare.items()}, left)
        for name, count in part.items():
            filled[name] += min(count, capacity[name] - filled[name])
    return filled
