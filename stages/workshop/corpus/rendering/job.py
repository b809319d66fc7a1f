"""Everything that decides what is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stages.device.imaging.geometry import Grid, Size
from stages.workshop.corpus.rendering.degradations import Degradation
from stages.workshop.corpus.rendering.scene import SPLITS, Look, Split
from stages.workshop.corpus.rendering.schedule import order


@dataclass(frozen=True)
class GridChoice:
    """Pictures of one size in tiles, how many relative to others, and of which families (all where empty)."""

    grid: Grid
    share: float
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that decides what is drawn.

    Attributes:
        seed: where all chance comes from.
        families: names of families, each with the tasks to ask.
        weights: how often each family draws a training picture, relative to the others; missing ones count 1.
        side: of a picture of one tile, in pixels.
        grids: sizes of pictures; a family that some name has those, the others have those that name none.
        look: how pictures look, but for their size.
        turns: most questions about one training picture.
        form: "jpeg" or "png".
        degradations: what befalls pictures once they are drawn.
        degraded: splits whose pictures it befalls.
    """

    seed: int
    families: Mapping[str, tuple[str, ...]]
    side: int
    grids: tuple[GridChoice, ...]
    look: Look
    turns: int
    form: str
    weights: Mapping[str, float] = field(default_factory=dict)
    degradations: tuple[Degradation, ...] = ()
    degraded: tuple[Split, ...] = SPLITS

    def order(self, split: Split) -> tuple[str, ...]:
        """Whose turn it is in a split, one round; every held-out question is asked equally often."""
        return order({name: self.weights.get(name, 1.0) if split == "train" else 1.0 for name in self.families})

    def draw_size(self, rng: np.random.Generator, family: str) -> Size:
        """A size of picture for a family, in pixels."""
        items = self._choices(family)
        shares = np.array([item.share for item in items])
        return self._size(items[rng.choice(len(items), p=shares / shares.sum())].grid)

    def sizes(self, family: str) -> tuple[Size, ...]:
        """All sizes that a family's pictures may have."""
        return tuple(self._size(item.grid) for item in self._choices(family))

    def _choices(self, family: str) -> tuple[GridChoice, ...]:
        named = tuple(item for item in self.grids if family in item.families)
        return named or tuple(item for item in self.grids if not item.families)

    def _size(self, grid: Grid) -> Size:
        return Size(grid.cols * self.side, grid.rows * self.side)
