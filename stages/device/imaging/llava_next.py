"""LLaVA-NeXT's choice: the largest effective resolution, and among equals the least waste.

Equals `transformers.image_processing_utils.select_best_resolution`, also for extreme shapes (10000×5), which measure 0
everywhere and so get the smallest canvas.

Axes: N sizes.
"""

from __future__ import annotations

import numpy as np

from stages.device.imaging.candidates import descending_grids
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.resolution import effective_resolution, effective_resolutions
from stages.device.imaging.spec import TilingSpec


def llava_next(size: Size, spec: TilingSpec) -> Grid:
    """The candidate with the largest effective resolution; the smaller canvas among equals."""
    best = Grid(1, 1)
    best_effective = 0
    best_wasted = float("inf")
    for grid in descending_grids(spec):
        effective = effective_resolution(size, grid, spec.tile_size)
        wasted = grid.area * spec.tile_size * spec.tile_size - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = grid, effective, wasted
    return best


def llava_next_many(widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> np.ndarray:
    """The same for many sizes: cols and rows [2, N] of float64 [N] sides."""
    best = np.ones((2, len(widths)))
    best_effective = np.zeros(len(widths))
    best_wasted = np.full(len(widths), np.inf)
    for grid in descending_grids(spec):
        effective = effective_resolutions(widths, heights, grid, spec.tile_size)
        wasted = grid.area * spec.tile_size * spec.tile_size - effective
        taken = (effective > best_effective) | ((effective == best_effective) & (wasted < best_wasted))
        best[0, taken], best[1, taken] = grid
        best_effective[taken] = effective[taken]
        best_wasted[taken] = wasted[taken]
    return best
