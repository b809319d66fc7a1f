"""InternLM-XComposer2-4KHD's automatic patch configuration (arXiv 2404.06512; `HD_transform` of its public code).

A lying picture gets as many columns s as the budget allows, s · ⌈s / ratio⌉ ≤ HD number, and is scaled to that width
whatever its own size is; the rows are what its scaled height needs. A standing one is turned first. As published, small
pictures are enlarged to the whole budget: the model's authors choose the HD number by the task (9, 16, 25, 55).

The grid is the public code's. Two things around it are ours, as for every rule: the picture's place on the canvas is to
a pixel LLaVA-NeXT's, and a 1:1 grid has no thumbnail (4KHD always adds one). Where the public code would scale to a
height of 0 and fail, there is one row.

Axes: N sizes.
"""

from __future__ import annotations

import math

import numpy as np

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec


def xcomposer(size: Size, spec: TilingSpec) -> Grid:
    """The widest grid within the budget of tiles that keeps the picture's aspect."""
    long, short = max(size), min(size)
    ratio = long / short
    across = 1
    while (across + 1) * math.ceil((across + 1) / ratio) <= spec.tile_budget:
        across += 1
    down = max(1, math.ceil(int(across * spec.tile_size / ratio) / spec.tile_size))
    return Grid(across, down) if size.width >= size.height else Grid(down, across)


def xcomposer_many(widths: np.ndarray, heights: np.ndarray, spec: TilingSpec) -> np.ndarray:
    """The same for many sizes: cols and rows [2, N] of float64 [N] sides."""
    ratios = np.maximum(widths, heights) / np.minimum(widths, heights)
    across = np.ones(len(widths))
    # s · ⌈s / ratio⌉ grows with s, so the last s that fits is where the scalar form stops.
    for columns in range(2, spec.tile_budget + 1):
        across[columns * np.ceil(columns / ratios) <= spec.tile_budget] = columns
    down = np.ceil(np.trunc(across * spec.tile_size / ratios) / spec.tile_size)
    np.maximum(down, 1, out=down)
    lying = widths >= heights
    return np.stack([np.where(lying, across, down), np.where(lying, down, across)])
