"""Tiles put together again are the scaled picture; and all of it equals transformers' LLaVA-NeXT processor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.device.imaging.crop import Colour, crop_tiles, normalize, padding_colour
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling

GREY = Colour(127, 127, 127)


def noise(size: Size, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return Image.fromarray(values)


def joined(tiles: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Local tiles laid out one by one: [H, W, 3]."""
    canvas = np.zeros((tiling.canvas.height, tiling.canvas.width, 3), np.uint8)
    for tile, box in zip(tiles[tiling.has_thumbnail :], tiling.boxes, strict=True):
        canvas[box.top : box.bottom, box.left : box.right] = np.moveaxis(tile, 0, 2)
    return canvas


@settings(deadline=None, max_examples=60)
@given(
    st.builds(Size, st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["relaxed", "llava-next", "internvl-1.5"]),
    st.sampled_from(["bicubic", "bilinear", "lanczos", "nearest"]),
)
def test_joined_tiles_are_the_padded_scaled_picture(size: Size, rule: RuleName, resample: str) -> None:
    image = noise(size)
    tiling = plan_tiling(size, TilingSpec(rule=rule, tile_size=48))
    tiles = crop_tiles(image, tiling, Colour(1, 2, 3), resample, exact=True)
    method = Image.Resampling[resample.upper()]
    canvas = Image.new("RGB", tiling.canvas, (1, 2, 3))
    canvas.paste(image.resize(tiling.scaled, method), (tiling.picture.left, tiling.picture.top))
    assert (tiles.dtype, tiles.shape) == (np.uint8, (tiling.tiles, 3, 48, 48))
    np.testing.assert_array_equal(joined(tiles, tiling), np.asarray(canvas))
    if tiling.has_thumbnail:
        np.testing.assert_array_equal(np.moveaxis(tiles[0], 0, 2), np.asarray(image.resize((48, 48), method)))


@pytest.mark.parametrize("size", [Size(500, 330), Size(97, 301), Size(384, 384), Size(700, 96), Size(300, 290)])
def test_tiles_are_transformers_llava_next_processor(size: Size) -> None:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    side, mean, std = 96, [0.481, 0.458, 0.408], [0.269, 0.261, 0.276]
    theirs = LlavaNextImageProcessorPil(
        image_grid_pinpoints=[[rows * side, cols * side] for cols in range(1, 5) for rows in range(1, 5)],
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        image_mean=mean,
        image_std=std,
    )
    image = noise(size)
    expected = theirs(image, return_tensors="np")["pixel_values"][0]
    tiling = plan_tiling(size, TilingSpec(rule="llava-next", tile_size=side))
    ours = normalize(crop_tiles(image, tiling, Colour(0, 0, 0), exact=True), mean, std)
    if not tiling.has_thumbnail:  # theirs adds a thumbnail to a single tile too
        expected = expected[1:]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_normalize_is_the_formula_in_double_precision() -> None:
    tiles = np.arange(2 * 3 * 16 * 16, dtype=np.int64).reshape(2, 3, 16, 16).astype(np.uint8)
    mean, std = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
    shape = (1, 3, 1, 1)
    expected = (tiles.astype(np.float64) / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)
    np.testing.assert_allclose(normalize(tiles, mean, std), expected, rtol=0, atol=5e-7)


def test_padding_is_the_mean_colour_and_nearly_zero_once_normalized() -> None:
    assert padding_colour((0.5, 0.5, 0.5)) == GREY
    tiling = plan_tiling(Size(380, 76), TilingSpec())
    tiles = crop_tiles(noise(Size(380, 76)), tiling, GREY)
    padding = np.ones((384, 384), bool)
    padding[tiling.picture.top : tiling.picture.bottom] = False
    assert padding.sum() > 384 * 200
    assert np.all(np.abs(normalize(tiles, (0.5,) * 3, (0.5,) * 3)[0][:, padding]) < 0.005)


def test_wrong_inputs_are_refused() -> None:
    tiling = plan_tiling(Size(40, 40), TilingSpec())
    with pytest.raises(ValueError, match="does not fit"):
        crop_tiles(noise(Size(41, 40)), tiling, GREY)
    with pytest.raises(ValueError, match="does not fit"):
        crop_tiles(noise(Size(40, 40)).convert("HSV"), tiling, GREY)
    with pytest.raises(ValueError, match="unknown filter"):
        crop_tiles(noise(Size(40, 40)), tiling, GREY, "bicubik")
