"""MiniCPM-V's slicing, LLaVA-UHD's (arXiv 2403.11703, 2408.01800): an overview and slices of free size and few tokens.

A picture of more than 448² pixels is cut into about area / 448² slices, at most 9, in the grid whose aspect is nearest
on a logarithmic scale; each slice is scaled to about 448² pixels of its own aspect. Everything, also the tokens (one
for 56×56 pixels), is as MiniCPM-V 4.6 publishes it, whatever our tiles are: this counts what that model would spend.
Equals `MiniCPMV4_6ImageProcessorPil` of transformers.
"""

from __future__ import annotations

import math

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.token_count import TokenCount

_MOST_SLICES = 9
_SIDE = 448
# 14 pixels a patch, 4×4 patches merged into a token.
_TOKEN_SIDE = 56


def minicpm(size: Size, spec: TilingSpec) -> TokenCount:
    """Slices, overview and their tokens; the specification has no say."""
    del spec
    grid = minicpm_grid(size)
    if grid is None:
        whole = _fitted(size.width, size.height, enlarged=True)
        return TokenCount(size, "minicpm-v", (Grid(1, 1),), 1, _tokens(whole), whole.area)
    overview = _fitted(size.width, size.height, enlarged=False)
    width = _rounded(size.width, grid.cols) / grid.cols
    height = _rounded(size.height, grid.rows) / grid.rows
    piece = _fitted(width, height, enlarged=True)
    tokens = _tokens(overview) + grid.area * _tokens(piece)
    return TokenCount(size, "minicpm-v", (grid,), grid.area + 1, tokens, grid.area * piece.area)


def minicpm_grid(size: Size) -> Grid | None:
    """The grid of slices; None where the picture stays whole."""
    ideal = min(math.ceil(size.area / _SIDE**2), _MOST_SLICES)
    if ideal <= 1:
        return None
    aspect = math.log(size.width / size.height)
    best, least = Grid(1, 1), math.inf
    for count in (ideal - 1, ideal, ideal + 1):
        if not 1 < count <= _MOST_SLICES:
            continue
        for rows in (rows for rows in range(1, count + 1) if count % rows == 0):
            grid = Grid(count // rows, rows)
            error = abs(aspect - math.log(grid.cols / grid.rows))
            if error < least or (error == least and rows > best.rows):
                best, least = grid, error
    return best


def _fitted(width: float, height: float, enlarged: bool) -> Size:
    """The size a picture or slice is encoded at: about 448² pixels, or its own where smaller and not `enlarged`."""
    if width * height > _SIDE**2 or enlarged:
        aspect = width / height
        height = int(_SIDE / math.sqrt(aspect))
        width = int(height * aspect)
    return Size(_rounded(width, _TOKEN_SIDE), _rounded(height, _TOKEN_SIDE))


def _rounded(length: float, unit: int) -> int:
    return max(round(length / unit) * unit, unit)


def _tokens(size: Size) -> int:
    return size.area // _TOKEN_SIDE**2
