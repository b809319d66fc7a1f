"""Mini-Monkey's multi-scale adaptive cropping (arXiv 2408.02034): two grids whose cuts do not all coincide.

The detailed grid is InternVL 1.5's among those of at least 4 tiles. The adaptive grid is InternVL's too, among those of
3 to 7 tiles that do not divide the detailed one (a grid divides it when both its sides divide the other's), so that
what one grid cuts the other may show whole. Both and a thumbnail are encoded. The bounds are those of the model's
public example (`min_num` 4 and 3, `max_num` 12 and 7; `prior_aspect_ratio`), our budget of tiles in place of the 12.

A budget below 4 leaves the detailed layer no grid: the picture is one tile.
"""

from __future__ import annotations

from stages.device.imaging.candidates import grids_by_area
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.internvl import choose_internvl
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.token_count import TokenCount

_LEAST_DETAILED, _LEAST_ADAPTIVE, _MOST_ADAPTIVE = 4, 3, 7


def mini_monkey(size: Size, spec: TilingSpec) -> TokenCount:
    """Tiles of both grids and the thumbnail, in our tiles and their tokens."""
    grids = mini_monkey_grids(size, spec.tile_budget, spec.tile_size)
    local = sum(grid.area for grid in grids)
    tiles = local + 1 if local > 1 else 1
    return TokenCount(size, "mini-monkey", grids, tiles, tiles * spec.tokens_per_tile, local * spec.tile_size**2)


def mini_monkey_grids(size: Size, budget: int, tile: int) -> tuple[Grid, ...]:
    """The detailed grid and the adaptive one; 1:1 alone where the budget has no grid of 4 tiles."""
    if budget < _LEAST_DETAILED:
        return (Grid(1, 1),)
    detailed = choose_internvl(size, _grids(_LEAST_DETAILED, budget), tile)
    others = [grid for grid in _grids(_LEAST_ADAPTIVE, min(_MOST_ADAPTIVE, budget)) if not _divides(grid, detailed)]
    return detailed, choose_internvl(size, others, tile)


def _grids(least: int, most: int) -> list[Grid]:
    return [grid for grid in grids_by_area(most) if grid.area >= least]


def _divides(grid: Grid, other: Grid) -> bool:
    return other.cols % grid.cols == 0 and other.rows % grid.rows == 0
