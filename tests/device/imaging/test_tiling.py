"""What holds for every picture and every specification: boxes, tokens, placement."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.device.imaging.geometry import Box, Grid, Size
from stages.device.imaging.presets import IMAGING_PRESETS
from stages.device.imaging.rules import RULES
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import centred, fit_inside, plan_tiling

sides = st.integers(1, 30_000)
sizes = st.builds(Size, sides, sides)
specs = st.builds(
    TilingSpec,
    rule=st.sampled_from(list(RULES)),
    alpha=st.floats(0, 0.99),
    max_cols=st.integers(1, 6),
    max_rows=st.integers(1, 6),
    max_tiles=st.none() | st.integers(1, 20),
    tile_size=st.integers(1, 512),
    tokens_per_tile=st.integers(1, 729),
)


@settings(deadline=None)
@given(sizes, specs)
def test_tiles_cover_the_canvas_once_and_tokens_count_them(size: Size, spec: TilingSpec) -> None:
    tiling = plan_tiling(size, spec)
    cols, rows = tiling.grid
    if spec.max_tiles is not None:
        assert cols * rows <= spec.max_tiles
    elif spec.rule not in ("relaxed", "llava-next"):  # these know a budget only
        assert cols * rows <= spec.max_cols * spec.max_rows
    else:
        assert cols <= spec.max_cols
        assert rows <= spec.max_rows
    assert tiling.tiles == (1 if (cols, rows) == (1, 1) else cols * rows + 1)
    assert tiling.tokens == tiling.tiles * spec.tokens_per_tile
    assert tiling.canvas == Size(cols * spec.tile_size, rows * spec.tile_size)
    assert len(set(tiling.boxes)) == len(tiling.boxes) == cols * rows
    assert tiling.boxes == tuple(sorted(tiling.boxes, key=lambda box: (box.top, box.left)))
    for box in tiling.boxes:
        assert box.size == Size(spec.tile_size, spec.tile_size)
        assert 0 <= box.left < box.right <= tiling.canvas.width
        assert 0 <= box.top < box.bottom <= tiling.canvas.height
        assert box.left % spec.tile_size == box.top % spec.tile_size == 0


@settings(deadline=None)
@given(sizes, specs)
def test_the_picture_lies_centred_inside_the_canvas(size: Size, spec: TilingSpec) -> None:
    tiling = plan_tiling(size, spec)
    place, canvas = tiling.picture, tiling.canvas
    if not RULES[spec.rule].keeps_aspect:
        assert place == Box(0, 0, *canvas)
        return
    assert tiling.scaled.width == canvas.width or tiling.scaled.height == canvas.height
    assert 0 <= (canvas.width - place.right) - place.left <= 1
    assert 0 <= (canvas.height - place.bottom) - place.top <= 1
    # The aspect is kept to within a pixel.
    scale = min(canvas.width / size.width, canvas.height / size.height)
    assert abs(tiling.scaled.width - size.width * scale) < 1.001
    assert abs(tiling.scaled.height - size.height * scale) < 1.001


@settings(deadline=None)
@given(sizes, specs)
def test_turning_a_picture_turns_the_grid_of_a_symmetric_rule(size: Size, spec: TilingSpec) -> None:
    """LLaVA-NeXT's measures know no direction; on a square box only a tie could, and there is none."""
    square = spec.model_copy(update={"rule": "llava-next", "max_rows": spec.max_cols})
    turned = plan_tiling(Size(size.height, size.width), square).grid
    assert plan_tiling(size, square).grid == Grid(turned.rows, turned.cols)


@pytest.mark.parametrize("size", [Size(0, 5), Size(5, 0), Size(-1, 3)])
def test_a_picture_without_pixels_is_refused(size: Size) -> None:
    with pytest.raises(ValueError, match="positive sides"):
        plan_tiling(size, TilingSpec())


@settings(deadline=None)
@given(sizes, sizes)
def test_placement_is_transformers_get_patch_output_size(size: Size, canvas: Size) -> None:
    import numpy as np
    from transformers.image_processing_utils import get_patch_output_size
    from transformers.image_utils import ChannelDimension

    pixels = np.broadcast_to(np.uint8(0), (3, size.height, size.width))
    expected = get_patch_output_size(pixels, (canvas.height, canvas.width), ChannelDimension.FIRST)
    assert fit_inside(size, canvas) == Size(expected[1], expected[0])


def test_an_odd_pixel_of_padding_goes_right_and_below() -> None:
    assert centred(Size(3, 4), Size(6, 7)) == Box(1, 1, 4, 5)


@pytest.mark.parametrize("name", IMAGING_PRESETS)
def test_presets_count_their_tokens(name: str) -> None:
    preset = IMAGING_PRESETS[name]
    assert preset.tokens_for(preset.tiling.tile_size) == preset.tiling.tokens_per_tile


def test_the_papers_preset() -> None:
    preset = IMAGING_PRESETS["bluelm-v-3b"]
    assert (preset.tiling.tile_size, preset.patch_size, preset.tiling.tokens_per_tile) == (384, 14, 196)
    assert (preset.tiling.max_cols, preset.tiling.max_rows, preset.tiling.alpha) == (4, 4, 0.1)
