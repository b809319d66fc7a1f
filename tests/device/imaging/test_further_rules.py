"""Ferret-UI 2 and XComposer2-4KHD by hand-worked cases, and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling

TILE = 384
sides = st.integers(1, 6000)
sizes = st.builds(Size, sides, sides)
budgets = st.integers(1, 25)


def grid_by(rule: str, size: Size, budget: int, tile: int = TILE) -> Grid:
    return plan_tiling(size, TilingSpec.model_validate({"rule": rule, "max_tiles": budget, "tile_size": tile})).grid


@pytest.mark.parametrize(
    ("size", "budget", "grid"),
    [
        (Size(768, 768), 9, Grid(2, 2)),  # no change at all
        (Size(394, 390), 9, Grid(1, 1)),
        # 14.06 tiles of 16:9. 4:2 changes 1.125 × 1.758 = 1.98; 3:3 1.778 × 1.563 and 3:2 1.185 × 2.344 both 2.78.
        (Size(1920, 1080), 9, Grid(4, 2)),
        # 5:3 changes 1.067 × 1.067 = 1.14; 4:3 1.333 × 1.172 = 1.56.
        (Size(1920, 1080), 16, Grid(5, 3)),
        # 17.58 tiles of 9:20. 2:4 changes 1.111 × 2.197 = 2.44; 3:3 2.222 × 1.953 = 4.34.
        (Size(1080, 2400), 9, Grid(2, 4)),
        # 3:5 changes 1.333 × 1.172 = 1.56; 2:5 to 2:8 all 1.98.
        (Size(1080, 2400), 16, Grid(3, 5)),
        # Smaller than any canvas and wider: n:1 changes 5 / n × 5.106 n = 25.5 for every n up to 5.
        (Size(380, 76), 9, Grid(1, 1)),
        (Size(76, 380), 9, Grid(1, 1)),
        (Size(1, 1), 9, Grid(1, 1)),
    ],
)
def test_ferret_ui_by_hand(size: Size, budget: int, grid: Grid) -> None:
    assert grid_by("ferret-ui-2", size, budget) == grid


def change(size: Size, grid: Grid, tile: int) -> Fraction:
    """Both changes as factors of at least 1, exactly."""
    shape = Fraction(size.width * grid.rows, size.height * grid.cols)
    pixels = Fraction(size.area, grid.area * tile * tile)
    return max(shape, 1 / shape) * max(pixels, 1 / pixels)


@settings(deadline=None)
@given(sizes, budgets, st.integers(1, 512))
def test_ferret_ui_changes_a_picture_least(size: Size, budget: int, tile: int) -> None:
    grid = grid_by("ferret-ui-2", size, budget, tile)
    assert grid.area <= budget
    allowed = [Grid(cols, rows) for cols in range(1, budget + 1) for rows in range(1, budget // cols + 1)]
    least = min(change(size, each, tile) for each in allowed)
    assert change(size, grid, tile) / least - 1 < Fraction(1, 10**8)
    equals = [each for each in allowed if change(size, each, tile) == change(size, grid, tile)]
    assert grid.area == min(each.area for each in equals)


@settings(deadline=None)
@given(sizes)
def test_a_picture_of_a_grids_very_size_gets_that_grid_by_ferret_ui(size: Size) -> None:
    grid = Grid(1 + size.width % 4, 1 + size.height % 4)
    assert grid_by("ferret-ui-2", grid.canvas(TILE), 16) == grid


@pytest.mark.parametrize(
    ("size", "budget", "grid"),
    [
        (Size(1000, 1000), 9, Grid(3, 3)),
        (Size(10, 10), 9, Grid(3, 3)),  # small pictures are enlarged just the same
        # Ratio 1.778: 5 · ⌈2.81⌉ = 15, 6 · ⌈3.38⌉ = 24; 1680 wide is 945 high: 3 rows of 336.
        (Size(1920, 1080), 16, Grid(5, 3)),
        (Size(1080, 1920), 16, Grid(3, 5)),
        # 9 · ⌈5.06⌉ = 54, 10 · ⌈5.63⌉ = 60; 3024 wide is 1701 high: 6 rows.
        (Size(1920, 1080), 55, Grid(9, 6)),
        # 4 · ⌈2.001⌉ = 12, but the scaled height of 672.3 is cut to 672, which is 2 rows.
        (Size(4000, 2001), 12, Grid(4, 2)),
        (Size(2001, 4000), 12, Grid(2, 4)),
        (Size(10000, 5), 16, Grid(16, 1)),
        (Size(1, 20000), 16, Grid(1, 16)),  # 16 · 336 / 20000 is cut to 0: one column all the same
        (Size(700, 300), 1, Grid(1, 1)),
    ],
)
def test_xcomposer_by_hand(size: Size, budget: int, grid: Grid) -> None:
    assert grid_by("xcomposer2-4khd", size, budget, tile=336) == grid


@settings(deadline=None)
@given(sizes, budgets, st.integers(1, 512))
def test_xcomposer_is_its_equation_in_whole_numbers(size: Size, budget: int, tile: int) -> None:
    """s · ⌈s · short / long⌉ ≤ HD number for the largest s, wherever no rounding of the ratio can turn it."""
    long, short = max(size), min(size)
    assume(long % short == 0 or all(s * short % long and s * tile * short % long for s in range(1, budget + 1)))
    across = max(s for s in range(1, budget + 1) if s * -(-s * short // long) <= budget)
    down = max(1, -(-(across * tile * short // long) // tile))
    expected = Grid(across, down) if size.width >= size.height else Grid(down, across)
    assert grid_by("xcomposer2-4khd", size, budget, tile) == expected
    assert expected.area <= budget
