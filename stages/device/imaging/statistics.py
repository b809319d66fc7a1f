"""What tiling rules make of a corpus, from the sizes of its pictures alone: the evidence of Sec. 5.1.

Blocks of sizes are added one after the other and only sums are kept, so that memory is bounded whatever the corpus.
Axes: N distinct sizes of a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.many import ManyDecisions, decide_many
from stages.device.imaging.rules import COUNTED, RULES, Rule
from stages.device.imaging.sizes import SizeBlock, SizedPicture
from stages.device.imaging.spec import AnyRule, TilingSpec

ALL_RULES: tuple[AnyRule, ...] = (*RULES, *COUNTED)
_CUTTING: Mapping[str, Rule] = {str(rule): how for rule, how in RULES.items()}

# Bins of the enlargement: from each edge to below the next, the last without an end.
ENLARGEMENT_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
# Bins of a picture's longer side, in pixels, and of its shape (longer over shorter side), for the mix of sizes.
SIDE_EDGES = (0, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 4096)
SHAPE_EDGES = (1.0, 1.05, 1.2, 1.4, 1.6, 2.0, 3.0, 5.0)
REFERENCE: AnyRule = "relaxed"
# More than any grid has: a grid is then one number.
_MANY_ROWS = 2**20


class WorstCase(NamedTuple):
    """A size that a rule enlarges much. `picture` names the first picture of that size and says how many have it."""

    picture: SizedPicture
    grid: Grid
    enlargement: float

    def as_dict(self) -> dict[str, Any]:
        """name, width, height, images, grid, enlargement."""
        name, size, count = self.picture.name, self.picture.size, self.picture.count
        shown: dict[str, Any] = {"name": name, "width": size.width, "height": size.height, "images": count}
        return shown | {"grid": list(self.grid), "enlargement": self.enlargement}


class RuleStatistics:
    """What one rule, or a scheme that is only counted, makes of all pictures.

    Attributes:
        images, tiles, tokens: sums over all pictures; tiles with thumbnails.
        histogram: pictures in each bin of `ENLARGEMENT_EDGES`.
        grids: pictures with each grid.
        worst: the sizes it enlarges most, the worst first.
    """

    def __init__(self, rule: AnyRule, most_worst: int = 0) -> None:
        self.rule = rule
        self._cutting = _CUTTING.get(rule)
        self.images = self.tiles = self.tokens = 0
        self.histogram = np.zeros(len(ENLARGEMENT_EDGES), np.int64)
        self.grids: Counter[Grid] = Counter()
        self.worst: list[WorstCase] = []
        self._most_worst = most_worst
        self._enlargement = self._kept = 0.0

    @property
    def mean_enlargement(self) -> float:
        """Canvas area over the picture's own, on average over pictures."""
        return self._enlargement / self.images

    @property
    def mean_kept(self) -> float | None:
        """Effective resolution over the picture's own area, on average over pictures: 1 loses nothing.

        None for a scheme that is only counted: its parts have sizes of their own.
        """
        return None if self._cutting is None else self._kept / self.images

    def add(self, block: SizeBlock, decided: ManyDecisions) -> None:
        """Adds what the rule decided about a block."""
        counts = block.counts
        enlargement = decided.canvas_areas / (block.widths * block.heights)  # [N]
        self.images += int(counts.sum())
        self.tiles += int((decided.tiles * counts).sum())
        self.tokens += int((decided.tokens * counts).sum())
        self._enlargement += float((enlargement * counts).sum())
        if self._cutting is not None:
            self._kept += float((kept_share(block, decided, self._cutting.keeps_aspect) * counts).sum())
        self.histogram += _binned(enlargement, ENLARGEMENT_EDGES, counts)
        for key, count in _summed(decided.cols * _MANY_ROWS + decided.rows, counts):
            self.grids[Grid(*divmod(key, _MANY_ROWS))] += count
        self._keep_worst(block, decided, enlargement)

    def _keep_worst(self, block: SizeBlock, decided: ManyDecisions, enlargement: np.ndarray) -> None:
        if not self._most_worst:
            return
        kept = {case.picture.size: case for case in self.worst}
        least = np.partition(enlargement, -self._most_worst)[-self._most_worst] if len(block) > self._most_worst else 0
        # Of a block with sorted sizes the smaller of equals come first, so that the order of blocks does not matter.
        large = np.flatnonzero(enlargement >= least)
        for index in large[np.argsort(-enlargement[large], kind="stable")][: self._most_worst].tolist():
            size = Size(int(block.widths[index]), int(block.heights[index]))
            before = kept.get(size)
            name = before.picture.name if before else block.names[index]
            count = int(block.counts[index]) + (before.picture.count if before else 0)
            grid = Grid(int(decided.cols[index]), int(decided.rows[index]))
            kept[size] = WorstCase(SizedPicture(size, name, count), grid, float(enlargement[index]))
        self.worst = sorted(kept.values(), key=lambda case: (-case.enlargement, case.picture.size))[: self._most_worst]

    def as_dict(self) -> dict[str, Any]:
        """tiles, tokens, their means, mean_enlargement, mean_kept, enlargement_histogram, grids, worst.

        `cuts_our_tiles` is false for schemes that are only counted.
        """
        return {
            "cuts_our_tiles": self._cutting is not None,
            "tiles": self.tiles,
            "tokens": self.tokens,
            "mean_tiles": self.tiles / self.images,
            "mean_tokens": self.tokens / self.images,
            "mean_enlargement": self.mean_enlargement,
            "mean_kept": self.mean_kept,
            "enlargement_histogram": _as_bins(ENLARGEMENT_EDGES, self.histogram),
            "grids": {f"{grid.cols}:{grid.rows}": count for grid, count in sorted(self.grids.items())},
            "worst": [case.as_dict() for case in self.worst],
        }


@dataclass
class Comparison:
    """Pictures for which the relaxed rule makes fewer, as many, or more tokens than another.

    With tiles of one size that is a smaller, an equally large or a larger grid, as Sec. 5.1 counts.
    """

    smaller: int = 0
    equal: int = 0
    larger: int = 0

    def add(self, counts: np.ndarray, relaxed: np.ndarray, other: np.ndarray) -> None:
        """Adds pictures by their tokens, int64 [N] each."""
        self.smaller += int(counts[relaxed < other].sum())
        self.equal += int(counts[relaxed == other].sum())
        self.larger += int(counts[relaxed > other].sum())

    def as_dict(self) -> dict[str, int]:
        """smaller, equal, larger."""
        return dict(vars(self))


class Statistics:
    """What every rule makes of all pictures, and how the relaxed rule compares with the others.

    Args:
        spec: candidates, α, side and tokens of a tile; its own rule is not looked at.
        rules: the rules, the relaxed one among them.
        most_worst: how many of the worst cases are kept for each rule.
    """

    def __init__(self, spec: TilingSpec, rules: Iterable[AnyRule] = ALL_RULES, most_worst: int = 10) -> None:
        self._spec = spec
        self.rules = {rule: RuleStatistics(rule, most_worst) for rule in rules}
        self.relaxed_vs = {rule: Comparison() for rule in self.rules if rule != REFERENCE}
        self.sides = np.zeros(len(SIDE_EDGES), np.int64)
        self.shapes = np.zeros(len(SHAPE_EDGES), np.int64)

    @property
    def images(self) -> int:
        """All pictures."""
        return int(self.sides.sum())

    def add(self, block: SizeBlock) -> None:
        """Adds a block of sizes."""
        decided = {rule: decide_many(rule, block.widths, block.heights, self._spec) for rule in self.rules}
        for rule, decisions in decided.items():
            self.rules[rule].add(block, decisions)
        for rule, comparison in self.relaxed_vs.items():
            comparison.add(block.counts, decided[REFERENCE].tokens, decided[rule].tokens)
        longer, shorter = np.maximum(block.widths, block.heights), np.minimum(block.widths, block.heights)
        self.sides += _binned(longer, SIDE_EDGES, block.counts)
        self.shapes += _binned(longer / shorter, SHAPE_EDGES, block.counts)

    def as_dict(self) -> dict[str, Any]:
        """images, rules, relaxed_vs, and the mix of sizes."""
        return {
            "images": self.images,
            "rules": {rule: statistics.as_dict() for rule, statistics in self.rules.items()},
            "relaxed_vs": {rule: comparison.as_dict() for rule, comparison in self.relaxed_vs.items()},
            "longer_sides": _as_bins(SIDE_EDGES, self.sides),
            "shapes": _as_bins(SHAPE_EDGES, self.shapes),
        }


def kept_share(block: SizeBlock, decided: ManyDecisions, keeps_aspect: bool) -> np.ndarray:
    """Effective resolution over the picture's own area for each size, float64 [N]: what its canvas can show of it.

    As `effective_resolution`, but not cut to whole pixels; a stretched picture loses on each side by itself.

    Args:
        block: the sizes.
        decided: the decisions of a rule that cuts tiles of one size.
        keeps_aspect: whether the rule scales both sides alike.
    """
    tile = np.sqrt(decided.canvas_areas / (decided.cols * decided.rows))
    across = np.minimum(decided.cols * tile / block.widths, 1.0)
    down = np.minimum(decided.rows * tile / block.heights, 1.0)
    return np.minimum(across, down) ** 2 if keeps_aspect else across * down


def _summed(keys: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """The sum of the counts of each distinct key."""
    distinct, which = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, which, counts)
    yield from zip(distinct.tolist(), sums.tolist(), strict=True)


def _binned(values: np.ndarray, edges: Sequence[float], counts: np.ndarray) -> np.ndarray:
    """Pictures in each bin, int64 [edges]; what lies below the first edge counts as in the first bin."""
    bins = np.maximum(np.searchsorted(np.array(edges), values, side="right") - 1, 0)
    sums = np.zeros(len(edges), np.int64)
    np.add.at(sums, bins, counts)
    return sums


def _as_bins(edges: Sequence[float], counts: np.ndarray) -> list[dict[str, Any]]:
    ends = [*edges[1:], None]
    return [{"from": a, "to": b, "images": int(n)} for a, b, n in zip(edges, ends, counts, strict=True)]
