"""Effective resolution: what LLaVA-NeXT's rule and the relaxed one (eq. 1–3) measure a candidate by."""

from __future__ import annotations

from stages.device.imaging.geometry import Grid, Size


def effective_resolution(size: Size, grid: Grid, tile: int) -> int:
    """Pixels of the picture that survive on the grid's canvas: min(area scaled to fit inside, own area).

    Double precision and truncation are LLaVA-NeXT's own (`int(w * scale)`): exact integers differ from transformers
    on sizes like 2948×2212. Unlike there a scaled side is at least 1, or extreme shapes (10000×5) would measure 0
    on every canvas and nothing would be chosen.
    """
    width, height = size
    cols, rows = grid
    across, down = cols * tile / width, rows * tile / height
    scale = across if across < down else down
    scaled = (int(width * scale) or 1) * (int(height * scale) or 1)
    area = width * height
    return scaled if scaled < area else area
