"""InternVL 1.5's choice (`find_closest_aspect_ratio` of its `dynamic_preprocess`): the nearest aspect ratio.

The picture is then resized to the canvas without padding. Equals `get_optimal_tiled_canvas` of transformers' GOT-OCR2.
"""

from __future__ import annotations

from collections.abc import Iterable

from stages.device.imaging.geometry import Grid, Size


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
