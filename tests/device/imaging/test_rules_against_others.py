"""100 000 sizes: our rules against transformers' own functions and a plain reading of equations 1–3."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from stages.device.imaging.candidates import descending_grids
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling

TILE = 384


def _choices(sizes: list[Size], spec: TilingSpec) -> list[Grid]:
    return [plan_tiling(size, spec).grid for size in sizes]


def test_llava_next_is_transformers_select_best_resolution(random_sizes: list[Size]) -> None:
    from transformers.image_processing_utils import select_best_resolution

    candidates = [(rows * TILE, cols * TILE) for cols in range(1, 5) for rows in range(1, 5)]
    ours = _choices(random_sizes, TilingSpec(rule="llava-next"))
    for size, grid in zip(random_sizes, ours, strict=True):
        best = select_best_resolution((size.height, size.width), candidates)
        assert best == (grid.rows * TILE, grid.cols * TILE), size


@pytest.mark.parametrize("spec", [TilingSpec(max_cols=3, max_rows=3), TilingSpec(max_tiles=9)])
def test_llava_next_does_not_depend_on_the_order_of_candidates(random_sizes: list[Size], spec: TilingSpec) -> None:
    from transformers.image_processing_utils import select_best_resolution

    candidates = [(grid.rows * TILE, grid.cols * TILE) for grid in descending_grids(spec)]
    random.Random(3).shuffle(candidates)
    sizes = random_sizes[::10]
    for size, grid in zip(sizes, _choices(sizes, spec.model_copy(update={"rule": "llava-next"})), strict=True):
        best = select_best_resolution((size.height, size.width), candidates)
        assert best == (grid.rows * TILE, grid.cols * TILE), size


@pytest.mark.parametrize("size", [Size(2948, 2212), Size(2212, 2948), Size(384, 384), Size(10000, 5)])
def test_llava_next_where_exact_integers_would_differ(size: Size) -> None:
    from transformers.image_processing_utils import select_best_resolution

    candidates = [(rows * TILE, cols * TILE) for cols in range(1, 7) for rows in range(1, 7)]
    grid = plan_tiling(size, TilingSpec(rule="llava-next", max_cols=6, max_rows=6)).grid
    assert select_best_resolution((size.height, size.width), candidates) == (grid.rows * TILE, grid.cols * TILE)


@pytest.mark.parametrize("budget", [6, 9, 12])
def test_internvl_is_transformers_get_optimal_tiled_canvas(random_sizes: list[Size], budget: int) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    # Whole ratios meet the tie rule (1:1 against 2:2), which random sizes seldom do.
    squares = [Size(side * cols, side) for side in range(100, 1300, 7) for cols in (1, 2, 3)]
    sizes = (random_sizes if budget == 12 else random_sizes[::10]) + squares
    ours = _choices(sizes, TilingSpec(rule="internvl-1.5", max_tiles=budget))
    for size, grid in zip(sizes, ours, strict=True):
        assert get_optimal_tiled_canvas((size.height, size.width), (TILE, TILE), 1, budget) == grid, size


def _equations(sizes: np.ndarray, grids: list[tuple[int, int]], alpha: float) -> np.ndarray:
    """Equations 1–3 read literally, all sizes [N, 2] at once, one candidate after the other; returns grids [N, 2]."""
    width, height = sizes[:, 0], sizes[:, 1]
    best = np.zeros_like(sizes)
    most = np.zeros(len(sizes))  # R_e,max
    waste = np.full(len(sizes), np.inf)  # R_w,min
    for cols, rows in grids:
        scale = np.minimum(TILE * cols / width, TILE * rows / height)
        scaled = [np.maximum(np.trunc(side * scale), 1) for side in (width, height)]
        effective = np.minimum(scaled[0] * scaled[1], width * height)
        wasted = TILE * cols * TILE * rows - effective
        first = effective - most > alpha * most
        second = ((most - effective) < alpha * most) & (wasted < waste)
        updated = first | second
        best[updated] = cols, rows
        waste = np.where(updated, wasted, waste)
        most = np.where(updated, np.maximum(effective, most), most)
    return best


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        (TilingSpec(), 1),
        (TilingSpec(max_cols=3, max_rows=3), 4),
        (TilingSpec(max_tiles=9), 4),
        (TilingSpec(max_tiles=12, alpha=0.03), 8),
        (TilingSpec(alpha=0.4), 8),
        (TilingSpec(alpha=0), 8),
    ],
)
def test_relaxed_is_equations_1_to_3(random_sizes: list[Size], spec: TilingSpec, step: int) -> None:
    sizes = random_sizes[::step]
    if spec.max_tiles is None:
        allowed = itertools.product(range(1, spec.max_cols + 1), range(1, spec.max_rows + 1))
    else:
        sides = range(1, spec.max_tiles + 1)
        allowed = (grid for grid in itertools.product(sides, sides) if grid[0] * grid[1] <= spec.max_tiles)
    expected = _equations(np.array(sizes), sorted(allowed, reverse=True), spec.alpha)
    np.testing.assert_array_equal(np.array(_choices(sizes, spec)), expected)


def test_relaxed_is_never_larger_than_llava_next(random_sizes: list[Size]) -> None:
    """Wherever LLaVA-NeXT measures anything at all: a side shorter than 1/1152 of the other is truncated to 0."""
    sizes = [size for size in random_sizes[::5] if max(size) < 3 * TILE * min(size)]
    relaxed = _choices(sizes, TilingSpec(max_cols=3, max_rows=3))
    by_next = _choices(sizes, TilingSpec(rule="llava-next", max_cols=3, max_rows=3))
    assert all(ours.area <= theirs.area for ours, theirs in zip(relaxed, by_next, strict=True))
    assert sum(ours.area < theirs.area for ours, theirs in zip(relaxed, by_next, strict=True)) > len(sizes) / 100
