"""InternVL 1.5's choice (`find_closest_aspect_ratio` of its `dynamic_preprocess`): the nearest aspect ratio.

The picture is then resized to the canvas without padding. Equals `get_optimal_tiled_canvas` of transformers' GOT-OCR2.
The rule bounds the number of tiles alone: a box counts as the tiles it holds (3×3 as 9, Sec. 5.1).

Axes: N sizes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stages.device.imaging.candidates import grids_by_area
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec


def internvl(size: Size, spec: TilingSpec) -> Grid:
    """The rule among all grids within the budget of tiles."""
    return choose_internvl(size, grids_by_area(spec.tile_budget), spec.tile_size)


def choose_internvl(size: Size, candidates: Iterable[Grid], tile: int) -> Grid:
    """The candidate whose cols/rows is nearest to width/height.

    Among equally near ones (2:1, 4:2, …) a later one wins while the picture has more than half the pixels of its
    canvas.

    Args:
        size: the picture.
        candidates: by area, then by columns, the smallest first.
        tile: side of a tile in pixels.
    """
    ratio = size.width / size.height
    best = Grid(1, 1)
    best_difference = float("inf")
    for grid in candidates:
        difference = abs(ratio - grid.cols / grid.rows)
        if difference < best_difference:
            best, best_difference = grid, difference
        elif difference == best_difference and size.area > 0.5 * grid.canvas(tile).area:
            best = grid
    return best


def internvl_many(widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> np.ndarray:
    """`internvl` for many sizes: cols and rows [2, N] of float64 [N] sides."""
    ratios, areas = widths / heights, widths * heights
    best = np.ones((2, len(widths)))
    best_difference = np.full(len(widths), np.inf)
    for grid in grids_by_area(spec.tile_budget):
        difference = np.abs(ratios - grid.cols / grid.rows)
        as_near = (difference == best_difference) & (areas > 0.5 * grid.canvas(spec.tile_size).area)
        taken = (difference < best_difference) | as_near
        best[0, taken], best[1, taken] = grid
        np.minimum(best_difference, difference, out=best_difference)
    return best
