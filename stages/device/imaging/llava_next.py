"""LLaVA-NeXT's choice: the largest effective resolution, and among equals the least waste.

Equals `transformers.image_processing_utils.select_best_resolution`, also for extreme shapes (10000×5), which measure 0
everywhere and so get the smallest canvas.
"""

from __future__ import annotations

from collections.abc import Iterable

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.resolution import effective_resolution


def choose_llava_next(size: Size, candidates: Iterable[Grid], tile: int) -> Grid:
    """The candidate with the largest effective resolution; the smaller canvas among equals.

    Args:
        size: the picture.
        candidates: in any order; the earlier one wins where both measures are equal.
        tile: side of a tile in pixels.
    """
    best = Grid(1, 1)
    best_effective = 0
    best_wasted = float("inf")
    for grid in candidates:
        effective = effective_resolution(size, grid, tile)
        wasted = grid.area * tile * tile - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = grid, effective, wasted
    return best
