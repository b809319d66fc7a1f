"""What was drawn against what was asked for, by source and by category."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stages.workshop.corpus.mixture import Mixture
from stages.workshop.corpus.mixture_scan import Scan
from stages.workshop.corpus.mixture_shares import Draw


class Tally:
    """Counts over the rows drawn. Pictures are counted by 8 bytes each."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.questions: Counter[str] = Counter()
        self._pictures: dict[str, array[int]] = {}

    def add_pictures(self, source: str, keys: list[int]) -> None:
        """Notes pictures of a row, by a 64-bit number each."""
        self._pictures.setdefault(source, array("Q")).extend(keys)

    def pictures(self, source: str | None = None) -> int:
        """How many different pictures a source gave, or all together."""
        wanted = self._pictures.values() if source is None else [self._pictures.get(source, array("Q"))]
        numbers = [np.frombuffer(keys, np.uint64) for keys in wanted if keys]
        return len(np.unique(np.concatenate(numbers))) if numbers else 0


def report(
    mixture: Mixture, draws: list[Draw], scans: Mapping[str, Scan], tally: Tally | None, tokens: bool
) -> dict[str, Any]:
    """`{"sources": [...], "categories": [...], "rows", "missing", "short"}`.

    Args:
        mixture: what was asked for.
        draws: what was decided.
        scans: what sources hold.
        tally: what came; None for a plan.
        tokens: whether they were counted.
    """
    whole = sum(draw.drawn for draw in draws)
    sources = [_source(draw, scans.get(draw.name), whole, tally, tokens) for draw in draws]
    return {
        "sources": sources,
        "categories": [*_categories(mixture, sources, whole)],
        "rows": whole,
        "asked_rows": mixture.total,
        "pictures": tally.pictures() if tally is not None else None,
        "missing": [draw.name for draw in draws if draw.rows is None],
        "short": [draw.name for draw in draws if draw.rows is not None and draw.drawn < draw.wanted],
    }


def warnings(content: Mapping[str, Any], mixture: Mixture) -> Iterator[str]:
    """What a user should know of it, in sentences."""
    if content["missing"]:
        names = ", ".join(content["missing"])
        given = "went to others" if mixture.renormalize else "stay empty (--renormalize gives them to others)"
        yield f"not given: {names}; their places {given}"
    for source in content["sources"]:
        if source["name"] in content["short"]:
            after = "others take its places" if mixture.fill else "its places stay empty (--fill gives them to others)"
            limit = (
                f"its limit of {mixture.sources[source['name']].most:,} rows"
                if source["drawn"] == mixture.sources[source["name"]].most
                else f"each at most {mixture.repeat_of(source['name']):g} times"
            )
            yield (
                f"{source['name']} is too small: its share is {source['wanted']:,} rows, "
                f"it gives {source['drawn']:,} ({source['rows']:,} rows, {limit}); {after}"
            )
        if source["unusable"]:
            yield f"{source['name']}: {source['unusable']:,} rows cannot be used; left_out.jsonl tells why"
        if source["between"]:
            yield f"{source['name']}: {source['between']:,} rows have pictures on both sides of the split; left out"


def _source(draw: Draw, scan: Scan | None, whole: int, tally: Tally | None, tokens: bool) -> dict[str, Any]:
    return {
        "name": draw.name,
        "category": draw.category,
        "given": draw.rows is not None,
        "rows": draw.rows,
        "wanted": draw.wanted,
        "drawn": draw.drawn,
        "share_asked": draw.asked,
        "share_aimed": draw.aimed,
        "share_drawn": draw.drawn / whole if whole else 0.0,
        "times": draw.times,
        "pictures": tally.pictures(draw.name) if tally is not None else None,
        "tokens": tally.tokens[draw.name] if tally is not None and tokens else None,
        "heldout": scan.heldout if scan is not None else 0,
        "between": scan.between if scan is not None else 0,
        "unusable": scan.unusable if scan is not None else 0,
    }


def _categories(mixture: Mixture, sources: list[dict[str, Any]], whole: int) -> Iterator[dict[str, Any]]:
    of_all = sum(mixture.categories.values())
    for category, share in mixture.categories.items():
        members = [source for source in sources if source["category"] == category]
        drawn = sum(source["drawn"] for source in members)
        tokens = [source["tokens"] for source in members if source["tokens"] is not None]
        yield {
            "name": category,
            "rows": sum(source["rows"] or 0 for source in members),
            "drawn": drawn,
            "share_asked": share / of_all,
            "share_drawn": drawn / whole if whole else 0.0,
            "tokens": sum(tokens) if tokens else None,
        }
