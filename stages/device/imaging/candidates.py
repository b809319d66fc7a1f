"""Which grids a rule may choose from.

Two ways to bound them: a box (all grids up to `max_cols` × `max_rows`, Sec. 5.1 and LLaVA-NeXT) or a budget (all grids
of at most `max_tiles` tiles, InternVL 1.5). The caches hold pure functions of a few integers.
"""

from __future__ import annotations

from functools import lru_cache

from stages.device.imaging.geometry import Grid
from stages.device.imaging.spec import TilingSpec


@lru_cache(maxsize=64)
def box_grids(max_cols: int, max_rows: int) -> tuple[Grid, ...]:
    """All grids up to max_cols × max_rows, the largest first: by columns, then by rows (4:4, 4:3, …, 1:1)."""
    return tuple(Grid(cols, rows) for cols in range(max_cols, 0, -1) for rows in range(max_rows, 0, -1))


@lru_cache(maxsize=64)
def budget_grids(max_tiles: int) -> tuple[Grid, ...]:
    """All grids of at most max_tiles tiles, in the order of `box_grids`."""
    return tuple(Grid(cols, rows) for cols in range(max_tiles, 0, -1) for rows in range(max_tiles // cols, 0, -1))


@lru_cache(maxsize=64)
def grids_by_area(max_tiles: int) -> tuple[Grid, ...]:
    """The same grids by area, then by columns, the smallest first (InternVL 1.5's order)."""
    return tuple(sorted(budget_grids(max_tiles), key=lambda grid: (grid.area, grid.cols)))


def descending_grids(spec: TilingSpec) -> tuple[Grid, ...]:
    """The candidates of a specification, the largest first."""
    if spec.max_tiles is not None:
        return budget_grids(spec.max_tiles)
    return box_grids(spec.max_cols, spec.max_rows)
