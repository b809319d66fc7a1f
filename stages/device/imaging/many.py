"""Decisions about many sizes at once, for statistics: arrays in, arrays out, no picture and no object a size.

Axes: N sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import plan_tiling


@dataclass(frozen=True)
class ManyDecisions:
    """What a rule decides about N sizes; int64 [N] each.

    `cols`, `rows`: the grid of local tiles. `tiles`: with the thumbnail. `tokens`: of all tiles. `canvas_areas`: pixels
    that the local tiles cover together.
    """

    cols: np.ndarray
    rows: np.ndarray
    tiles: np.ndarray
    tokens: np.ndarray
    canvas_areas: np.ndarray


def decide_many(rule: RuleName, widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> ManyDecisions:
    """What one rule decides about every size, equal to `plan_tiling` size by size.

    Args:
        rule: the rule; the specification's own is not looked at.
        widths: pixels, integers [N].
        heights: pixels, integers [N].
        spec: candidates, α, side and tokens of a tile.

    Raises:
        ValueError: a side is not positive, or the arrays differ in length.
    """
    by_rule = spec.model_copy(update={"rule": rule})
    tilings = [plan_tiling(Size(*size), by_rule) for size in zip(widths.tolist(), heights.tolist(), strict=True)]
    return ManyDecisions(
        cols=np.array([tiling.grid.cols for tiling in tilings], np.int64),
        rows=np.array([tiling.grid.rows for tiling in tilings], np.int64),
        tiles=np.array([tiling.tiles for tiling in tilings], np.int64),
        tokens=np.array([tiling.tokens for tiling in tilings], np.int64),
        canvas_areas=np.array([tiling.canvas.area for tiling in tilings], np.int64),
    )
