"""Schemes that are only counted, against the public code that is installed and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.mini_monkey import mini_monkey_grids
from stages.device.imaging.minicpm import minicpm_grid
from stages.device.imaging.qwen2_vl import qwen2_vl_size
from stages.device.imaging.rules import COUNTED
from stages.device.imaging.spec import TilingSpec

TILE = 384
SPEC = TilingSpec()
ROUND_SIZES = [Size(448 * cols + off, 448 * rows) for cols in (1, 2, 3) for rows in (1, 2, 3) for off in (-1, 0, 1)]


@pytest.mark.parametrize(
    ("size", "budget", "grids", "tiles"),
    [
        # 4:3 is its very shape; of 3 to 7 tiles that do not divide it 3:2 is nearest (2:2 is 1/3 off, 3:2 1/6).
        (Size(800, 600), 12, (Grid(4, 3), Grid(3, 2)), 19),
        # A small square: 2:2 before 3:3, then 2:3 (1/3 off) before 3:2 (1/2 off).
        (Size(500, 500), 12, (Grid(2, 2), Grid(2, 3)), 11),
        # A large one: 3:3, which 2:2 does not divide.
        (Size(1200, 1200), 12, (Grid(3, 3), Grid(2, 2)), 14),
        # 7:1 is divided by 7:1 itself; 6:1 is next.
        (Size(7000, 1000), 9, (Grid(7, 1), Grid(6, 1)), 14),
        (Size(800, 600), 3, (Grid(1, 1),), 1),
    ],
)
def test_mini_monkey_by_hand(size: Size, budget: int, grids: tuple[Grid, ...], tiles: int) -> None:
    count = COUNTED["mini-monkey"](size, TilingSpec(max_tiles=budget))
    assert (count.grids, count.tiles, count.tokens) == (grids, tiles, tiles * 196)
    assert count.canvas_area == sum(grid.area for grid in grids) * TILE * TILE


@pytest.mark.parametrize("budget", [4, 6, 9, 12, 16])
def test_the_detailed_grid_is_transformers_with_at_least_four_tiles(random_sizes: list[Size], budget: int) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    for size in random_sizes[budget::100]:
        detailed = mini_monkey_grids(size, budget, TILE)[0]
        assert get_optimal_tiled_canvas((size.height, size.width), (TILE, TILE), 4, budget) == detailed, size


def test_the_adaptive_grid_is_the_nearest_that_does_not_divide_the_other(random_sizes: list[Size]) -> None:
    grids = [Grid(cols, rows) for cols in range(1, 8) for rows in range(1, 8) if 3 <= cols * rows <= 7]
    for size in random_sizes[::50]:
        detailed, adaptive = mini_monkey_grids(size, 12, TILE)
        allowed = [grid for grid in grids if detailed.cols % grid.cols or detailed.rows % grid.rows]
        nearest = min(abs(size.width / size.height - grid.cols / grid.rows) for grid in allowed)
        assert adaptive in allowed, size
        assert abs(size.width / size.height - adaptive.cols / adaptive.rows) == nearest, size


@pytest.fixture(scope="module")
def minicpm_processor():  # type: ignore[no-untyped-def]
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    return MiniCPMV4_6ImageProcessorPil()


def test_minicpm_slices_as_transformers(minicpm_processor, random_sizes: list[Size]) -> None:  # type: ignore[no-untyped-def]
    for size in [*random_sizes[::10], *ROUND_SIZES]:
        theirs = minicpm_processor.get_sliced_grid((size.height, size.width), 9, 448)
        assert minicpm_grid(size) == (None if theirs is None else Grid(theirs[1], theirs[0])), size


def test_minicpm_counts_tokens_as_transformers(minicpm_processor, random_sizes: list[Size]) -> None:  # type: ignore[no-untyped-def]
    """Both scaled sizes by transformers' own functions, put together as its processor does."""
    fit, refine = minicpm_processor.find_best_resize, minicpm_processor.get_refine_size
    for size in [*random_sizes[3::20], *ROUND_SIZES]:
        turned, grid = (size.height, size.width), minicpm_grid(size)
        height, width = fit(turned, 448, 14, "16x", allow_upscale=grid is None)
        tokens, area = height * width // 14**2 // 16, height * width
        if grid is not None:
            height, width = refine(turned, [grid.rows, grid.cols], 448, 14, "16x", allow_upscale=True)
            area = height * width
            tokens += grid.area * ((height // grid.rows // 14) * (width // grid.cols // 14) // 16)
        count = COUNTED["minicpm-v"](size, SPEC)
        assert (count.tokens, count.canvas_area) == (tokens, area), size
        assert count.tiles == (1 if grid is None else grid.area + 1)


@pytest.mark.parametrize(
    "size", [Size(300, 200), Size(448, 448), Size(640, 480), Size(1080, 2400), Size(1500, 90), Size(1999, 1333)]
)
def test_minicpm_counts_what_its_processor_makes(minicpm_processor, size: Size) -> None:  # type: ignore[no-untyped-def]
    made = minicpm_processor(np.zeros((size.height, size.width, 3), np.uint8), return_tensors="np")
    count = COUNTED["minicpm-v"](size, SPEC)
    assert count.tiles == made["num_patches_per_image"][0]
    assert count.tokens == sum(height * width // 16 for height, width in made["target_sizes"].tolist())
    assert made["grids"][0] == ([0, 0] if count.tiles == 1 else [count.grids[0].rows, count.grids[0].cols])


def test_qwen_scales_as_transformers(random_sizes: list[Size]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

    processor = Qwen2VLImageProcessorPil()
    halves = [Size(14 * cols, 14 * rows) for cols in range(1, 12) for rows in range(1, 12)]  # rounded half to even
    tried = 0
    for size in [*random_sizes[::10], *halves]:
        if max(size) > 200 * min(size):
            continue
        height, width = smart_resize(size.height, size.width, 28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
        assert qwen2_vl_size(size) == Size(width, height), size
        patches = processor.get_number_of_image_patches(size.height, size.width)
        assert COUNTED["qwen2-vl"](size, SPEC).tokens == patches // 4, size
        tried += 1
    assert tried > 9000


@settings(deadline=None)
@given(st.builds(Size, st.integers(1, 60_000), st.integers(1, 60_000)), st.integers(1, 64))
def test_every_scheme_counts_any_picture(size: Size, budget: int) -> None:
    """Also shapes that the public code refuses (Qwen2-VL beyond 200:1), within each scheme's own bounds."""
    counts = {scheme: COUNTED[scheme](size, TilingSpec(max_tiles=budget)) for scheme in COUNTED}
    assert all(count.tiles >= 1 and count.tokens >= 1 and count.enlargement > 0 for count in counts.values())
    assert counts["qwen2-vl"].tokens >= 4
    if max(size) <= 200 * min(size):
        assert counts["qwen2-vl"].tokens <= 1280
    assert counts["minicpm-v"].tiles <= 10
    assert counts["mini-monkey"].tiles <= budget + 8
