"""Decisions about many sizes at once, for statistics: arrays in, arrays out, no picture and no object a size.

Axes: N sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.device.imaging.geometry import Size
from stages.device.imaging.rules import COUNTED, RULES, counts, cuts
from stages.device.imaging.spec import AnyRule, CountedName, RuleName, TilingSpec

# Sizes decided about together: a dozen arrays of them stay in a core's second-level cache.
_TOGETHER = 8192
# Areas must stay whole in float64, and two sides must fit one int64.
_TOO_LONG = 2**26


@dataclass(frozen=True)
class ManyDecisions:
    """What a rule decides about N sizes; int64 [N] each.

    `cols`, `rows`: the grid of local tiles (of a scheme with two the first, detailed one). `tiles`: with the thumbnail.
    `tokens`: of all tiles. `canvas_areas`: pixels that the local tiles cover together.
    """

    cols: np.ndarray
    rows: np.ndarray
    tiles: np.ndarray
    tokens: np.ndarray
    canvas_areas: np.ndarray


def decide_many(rule: AnyRule, widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> ManyDecisions:
    """What one rule decides about every size, equal to `plan_tiling`, or to the scheme's count, size by size.

    Args:
        rule: the rule, or a scheme that is only counted; the specification's own rule is not looked at.
        widths: pixels, integers [N].
        heights: pixels, integers [N].
        spec: candidates, α, side and tokens of a tile.

    Raises:
        ValueError: there is no such rule, a side is not positive or too large, or the arrays are not two rows of
            integers of one length.
    """
    widths, heights = np.asarray(widths), np.asarray(heights)
    if widths.ndim != 1 or widths.shape != heights.shape:
        raise ValueError(f"widths {widths.shape} and heights {heights.shape} are not two rows of one length")
    if not (np.issubdtype(widths.dtype, np.integer) and np.issubdtype(heights.dtype, np.integer)):
        raise ValueError(f"sides are whole pixels, not {widths.dtype} and {heights.dtype}")
    if len(widths) and min(widths.min(), heights.min()) < 1:
        raise ValueError("a picture has positive sides")
    if len(widths) and max(widths.max(), heights.max()) >= _TOO_LONG:
        raise ValueError(f"a picture has sides below {_TOO_LONG}")
    if cuts(rule):
        return _choose(rule, widths, heights, spec)
    if counts(rule):
        return _count_distinct(rule, widths, heights, spec)
    raise ValueError(f"there is no rule {rule!r}")


def _choose(rule: RuleName, widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> ManyDecisions:
    grids = np.empty((2, len(widths)), np.int64)
    for first in range(0, len(widths), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        sides = widths[part].astype(np.float64), heights[part].astype(np.float64)
        grids[:, part] = RULES[rule].choose_many(*sides, spec)
    local = grids[0] * grids[1]
    tiles = local + (local > 1)
    return ManyDecisions(grids[0], grids[1], tiles, tiles * spec.tokens_per_tile, local * spec.tile_size**2)


def _count_distinct(rule: CountedName, widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> ManyDecisions:
    """One size after the other, each distinct one once: these schemes are counted, not chosen by, and are slower."""
    packed, places = np.unique(widths.astype(np.int64) << 32 | heights.astype(np.int64), return_inverse=True)
    counted = [COUNTED[rule](Size(pair >> 32, pair & 0xFFFFFFFF), spec) for pair in packed.tolist()]
    rows = [(*each.grids[0], each.tiles, each.tokens, each.canvas_area) for each in counted]
    table = np.array(rows, np.int64).reshape(-1, 5).T[:, places]
    return ManyDecisions(*table)
