"""Effective resolution: what LLaVA-NeXT's rule and the relaxed one (eq. 1–3) measure a candidate by.

Axes: N sizes.
"""

from __future__ import annotations

import numpy as np

from stages.device.imaging.geometry import Grid, Size


def effective_resolution(size: Size, grid: Grid, tile: int, least: int = 0) -> int:
    """Pixels of the picture that survive on the grid's canvas: min(area scaled to fit inside, own area).

    Double precision and truncation are LLaVA-NeXT's own (`int(w * scale)`): exact integers differ from transformers
    on sizes like 2948×2212.

    Args:
        size: the picture.
        grid: the candidate.
        tile: side of a tile in pixels.
        least: what a scaled side cannot fall below. At 0, as in LLaVA-NeXT, extreme shapes (10000×5) measure 0 on
            every canvas.
    """
    width, height = size
    cols, rows = grid
    across, down = cols * tile / width, rows * tile / height
    scale = across if across < down else down
    scaled = (int(width * scale) or least) * (int(height * scale) or least)
    area = width * height
    return scaled if scaled < area else area


def effective_resolutions(widths: np.ndarray, heights: np.ndarray, grid: Grid, tile: int, least: int = 0) -> np.ndarray:
    """The same for many pictures: float64 [N] that hold whole numbers, from widths and heights float64 [N].

    Whole numbers up to 2⁵³ are exact in float64, and the scalar form divides and multiplies in it too.
    """
    scale = np.minimum(grid.cols * tile / widths, grid.rows * tile / heights)
    across, down = np.trunc(widths * scale), np.trunc(heights * scale)
    if least:
        np.maximum(across, least, out=across)
        np.maximum(down, least, out=down)
    across *= down
    return np.minimum(across, widths * heights, out=across)
