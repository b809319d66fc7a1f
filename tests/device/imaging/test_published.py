"""Every published decision, and the traps that were found by running the rules."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from stages.device.imaging.candidates import box_grids, budget_grids, grids_by_area
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.relaxed import choose_relaxed
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import plan_tiling

# Candidate sets that the published cases do not depend on: Sec. 5.1's, the final model's, InternVL's of Fig. 3B.
SETS = [{"max_cols": 3, "max_rows": 3}, {"max_cols": 4, "max_rows": 4}, {"max_tiles": 6}, {"max_tiles": 9}]
RULE_NAMES: tuple[RuleName, ...] = ("relaxed", "llava-next", "internvl-1.5")


@pytest.mark.parametrize("candidates", SETS)
@pytest.mark.parametrize(
    ("size", "rule", "canvas"),
    [
        (Size(394, 390), "llava-next", Size(768, 768)),
        (Size(394, 390), "relaxed", Size(384, 384)),
        (Size(380, 76), "internvl-1.5", Size(1920, 384)),
        (Size(380, 76), "relaxed", Size(384, 384)),
        (Size(380, 393), "llava-next", Size(384, 768)),
        (Size(380, 393), "relaxed", Size(384, 384)),
        (Size(500, 102), "internvl-1.5", Size(1920, 384)),
        (Size(500, 102), "relaxed", Size(768, 384)),
    ],
)
def test_figures_3_and_9(size: Size, rule: RuleName, canvas: Size, candidates: dict[str, int]) -> None:
    assert plan_tiling(size, TilingSpec(rule=rule, **candidates)).canvas == canvas


def test_enlargements_of_figure_3() -> None:
    by_next = plan_tiling(Size(394, 390), TilingSpec(rule="llava-next"))
    by_internvl = plan_tiling(Size(380, 76), TilingSpec(rule="internvl-1.5", max_tiles=6))
    assert by_next.enlargement == pytest.approx(768 * 768 / (394 * 390)) == pytest.approx(3.84, abs=0.01)
    assert by_internvl.enlargement == pytest.approx(25.5, abs=0.05)


@pytest.mark.parametrize("height", [2340, 2400, 2412, 2424])
def test_a_phone_screen_is_nine_tiles(height: int) -> None:
    tiling = plan_tiling(Size(1080, height), imaging_preset("bluelm-v-3b").tiling)
    assert (tiling.grid, tiling.tiles, tiling.tokens) == (Grid(2, 4), 9, 1764)
    assert tiling.tiles * 27 * 27 == 6561  # before the downsampler


@pytest.mark.parametrize(
    ("candidates", "grid"),
    [
        ({"max_cols": 3, "max_rows": 3}, Grid(2, 3)),
        ({"max_cols": 4, "max_rows": 4}, Grid(2, 4)),
        ({"max_tiles": 8}, Grid(2, 4)),
        ({"max_tiles": 9}, Grid(2, 4)),
        ({"max_tiles": 12}, Grid(2, 5)),
        ({"max_cols": 6, "max_rows": 6}, Grid(3, 6)),
    ],
)
def test_a_phone_screen_by_candidates(candidates: dict[str, int], grid: Grid) -> None:
    for size in (Size(1080, 2400), Size(1440, 3200)):
        assert plan_tiling(size, TilingSpec(**candidates)).grid == grid


@pytest.mark.parametrize("alpha", [0.055, 0.1, 0.41])
def test_the_figures_accept_a_range_of_alphas(alpha: float) -> None:
    spec = TilingSpec(alpha=alpha)
    canvases = [plan_tiling(size, spec).canvas for size in (Size(394, 390), Size(380, 76), Size(380, 393))]
    assert canvases == [Size(384, 384)] * 3
    assert plan_tiling(Size(500, 102), spec).canvas == Size(768, 384)


@pytest.mark.parametrize("alpha", [0.05, 0.42])
def test_the_figures_refute_other_alphas(alpha: float) -> None:
    spec = TilingSpec(alpha=alpha)
    sizes = (Size(394, 390), Size(380, 76), Size(380, 393), Size(500, 102))
    expected = [Size(384, 384)] * 3 + [Size(768, 384)]
    assert [plan_tiling(size, spec).canvas for size in sizes] != expected


@pytest.mark.parametrize(("cols", "rows"), [(3, 3), (4, 4)])
def test_alpha_zero_keeps_the_largest_candidate_and_is_not_llava_next(cols: int, rows: int) -> None:
    size = Size(394, 390)
    relaxed = plan_tiling(size, TilingSpec(alpha=0, max_cols=cols, max_rows=rows))
    by_next = plan_tiling(size, TilingSpec(rule="llava-next", max_cols=cols, max_rows=rows))
    assert relaxed.grid == Grid(cols, rows)
    assert by_next.grid == Grid(2, 2)


@pytest.mark.parametrize("size", [Size(10000, 5), Size(20000, 1), Size(5, 10000), Size(1, 20000)])
def test_extreme_shapes_get_a_grid_along_them(size: Size) -> None:
    wide = size.width > size.height
    for rule, longest in (("relaxed", 4), ("internvl-1.5", 16)):
        tiling = plan_tiling(size, TilingSpec(rule=rule))
        assert tiling.grid == (Grid(longest, 1) if wide else Grid(1, longest))
        assert min(tiling.scaled) >= 1


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_one_pixel_is_one_tile(rule: RuleName) -> None:
    assert plan_tiling(Size(1, 1), TilingSpec(rule=rule)).tiles == 1


def test_lexicographic_order_matters_on_capped_sets() -> None:
    size = Size(420, 400)
    by_area = sorted(budget_grids(8), key=lambda grid: grid.area, reverse=True)
    for budget in (8, 9, 12):
        assert choose_relaxed(size, budget_grids(budget), 384, 0.1) == Grid(1, 1)
    assert choose_relaxed(size, by_area, 384, 0.1) == Grid(2, 1)


def test_descending_order_matters_a_little_over_a_tile_edge() -> None:
    size, grids = Size(640, 403), box_grids(3, 3)
    assert choose_relaxed(size, grids, 384, 0.1) == Grid(2, 1)
    assert choose_relaxed(size, grids[::-1], 384, 0.1) != Grid(2, 1)


def test_candidate_orders() -> None:
    assert box_grids(2, 3) == (Grid(2, 3), Grid(2, 2), Grid(2, 1), Grid(1, 3), Grid(1, 2), Grid(1, 1))
    assert budget_grids(3) == (Grid(3, 1), Grid(2, 1), Grid(1, 3), Grid(1, 2), Grid(1, 1))
    assert grids_by_area(4)[:4] == (Grid(1, 1), Grid(1, 2), Grid(2, 1), Grid(1, 3))
    assert len(box_grids(4, 4)) == 16
    assert len(budget_grids(9)) == 23


def test_counts_on_coco(data_dir: Path) -> None:
    """Sec. 5.1's comparison on sizes that are at hand; a count is of pictures, tiles without the thumbnail."""
    with (data_dir / "sizes" / "coco_val2017.csv").open() as stream:
        rows = [(Size(int(row["width"]), int(row["height"])), int(row["count"])) for row in csv.DictReader(stream)]
    total = sum(count for _, count in rows)
    tiles = {}
    for rule in RULE_NAMES:
        spec = TilingSpec(rule=rule, max_cols=3, max_rows=3)
        tiles[rule] = [plan_tiling(size, spec).grid.area for size, _ in rows]
    counts = [count for _, count in rows]
    relaxed, by_next, by_internvl = (tiles[rule] for rule in RULE_NAMES)

    def pictures(smaller: list[int], larger: list[int]) -> int:
        return sum(count for a, b, count in zip(smaller, larger, counts, strict=True) if a < b)

    assert total == 5000
    assert pictures(relaxed, by_next) == 130
    assert pictures(by_next, relaxed) == 0
    assert pictures(relaxed, by_internvl) == 4419
    assert pictures(by_internvl, relaxed) == 55
    means = [sum(a * count for a, count in zip(tiles[rule], counts, strict=True)) / total for rule in RULE_NAMES]
    assert [round(mean, 2) for mean in means] == [3.57, 3.62, 5.64]
