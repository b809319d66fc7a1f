"""The relaxed aspect ratio matching of BlueLM-V-3B (Sec. 3.2, eq. 1–3).

LLaVA-NeXT would take 2:2 for a picture of 394×390, four times its area, for the sake of a few pixels. Here a larger
canvas must win by more than a share α of the effective resolution; otherwise the one that wastes less is taken.

Axes: N sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.device.imaging.candidates import descending_grids
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.resolution import effective_resolution, effective_resolutions
from stages.device.imaging.spec import TilingSpec


def relaxed(size: Size, spec: TilingSpec) -> Grid:
    """The rule with a specification's candidates and α."""
    return choose_relaxed(size, descending_grids(spec), spec.tile_size, spec.alpha)


def choose_relaxed(size: Size, candidates: Sequence[Grid], tile: int, alpha: float) -> Grid:
    """Walks the candidates and keeps the last one that satisfies (1) or (2).

    At α = 0 the strict `<` of (2) can never hold without (1), so the first candidate stays where all are large enough:
    that is not LLaVA-NeXT's rule.

    Args:
        size: the picture.
        candidates: the largest first, by columns, then by rows; on capped sets (m·n ≤ 8) another order gives
            other results.
        tile: side of a tile in pixels.
        alpha: the share α, 0.1 in the paper.
    """
    best = candidates[0]
    best_effective = 0
    best_wasted = float("inf")
    for grid in candidates:
        # Sides of at least 1: where all R_e were 0, nothing would ever be chosen.
        effective = effective_resolution(size, grid, tile, least=1)
        wasted = grid.area * tile * tile - effective
        threshold = alpha * best_effective
        much_better = effective - best_effective > threshold  # (1)
        as_good_and_leaner = best_effective - effective < threshold and wasted < best_wasted  # (2)
        if much_better or as_good_and_leaner:
            best = grid
            best_effective = max(effective, best_effective)  # (3)
            best_wasted = wasted  # overwritten, not minimised
    return best


def relaxed_many(widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> np.ndarray:
    """`relaxed` for many sizes, each step for all of them at once: cols and rows [2, N] of float64 [N] sides."""
    tile, alpha = spec.tile_size, spec.alpha
    best = np.empty((2, len(widths)))
    best_effective = np.zeros(len(widths))
    best_wasted = np.full(len(widths), np.inf)
    for grid in descending_grids(spec):
        effective = effective_resolutions(widths, heights, grid, tile, least=1)
        wasted = grid.area * tile * tile - effective
        gain = effective - best_effective
        threshold = alpha * best_effective
        taken = (-gain < threshold) & (wasted < best_wasted)  # (2)
        taken |= gain > threshold  # (1)
        best[0, taken], best[1, taken] = grid
        best_wasted[taken] = wasted[taken]
        np.maximum(best_effective, effective, out=best_effective, where=taken)  # (3)
    return best
