"""Ferret-UI 2's adaptive N-gridding (arXiv 2410.18967, Algorithm 1): least change of shape and of pixels together.

A reading, not a reproduction: there is no public code, and the algorithm's own text was not at hand. Summaries say that
grids within a size limit N are tried, and that the change of the aspect ratio and the loss of pixels are minimized
together. The rest is ours:

- the two changes are multiplied;
- N bounds the number of tiles, N_w · N_h ≤ N;
- both changes are factors of at least 1 (twice as wide and half as wide are both a change of 2): differences would be
  0 for any grid of the picture's very aspect, and the product would forget its pixels (with them COCO's pictures get
  4.2 tiles instead of 2.8 at N = 9, so what is counted by this rule stands on this reading);
- among equals the one with the fewest tiles stays. Equals are common: where a picture is smaller than the canvas and
  wider than it, one more column costs in pixels exactly what it gains in shape;
- the picture is stretched to the canvas, as the change of its aspect says.

Axes: N sizes.
"""

from __future__ import annotations

import numpy as np

from stages.device.imaging.candidates import grids_by_area
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec

# Equal changes differ by rounding, which must not choose.
_CLEARLY = 1 + 1e-9


def ferret_ui(size: Size, spec: TilingSpec) -> Grid:
    """The grid whose canvas changes the picture least, among all within the budget of tiles."""
    ratio, area = size.width / size.height, float(size.width) * size.height
    best = Grid(1, 1)
    least = float("inf")
    for grid in grids_by_area(spec.tile_budget):
        aspect, canvas = grid.cols / grid.rows, grid.canvas(spec.tile_size).area
        change = max(aspect / ratio, ratio / aspect) * max(canvas / area, area / canvas)
        if change * _CLEARLY < least:
            best, least = grid, change
    return best


def ferret_ui_many(widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> np.ndarray:
    """The same for many sizes: cols and rows [2, N] of float64 [N] sides."""
    ratios, areas = widths / heights, widths * heights
    best = np.ones((2, len(widths)))
    least = np.full(len(widths), np.inf)
    for grid in grids_by_area(spec.tile_budget):
        aspect, canvas = grid.cols / grid.rows, grid.canvas(spec.tile_size).area
        change = np.maximum(aspect / ratios, ratios / aspect) * np.maximum(canvas / areas, areas / canvas)
        taken = change * _CLEARLY < least
        best[0, taken], best[1, taken] = grid
        least[taken] = change[taken]
    return best
