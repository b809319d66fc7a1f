"""torch's scaling against Pillow's: the same values but for the last bit; Pillow's own where it averages first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.device.imaging.crop import Colour, cut_tiles, pillow_scaled
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import REDUCING_GAP, Reduced
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.corpus.torch_scaling import torch_scaled


def noise(size: Size, mode: str = "RGB", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return Image.fromarray(values).convert(mode)


@settings(deadline=None, max_examples=40)
@given(
    st.builds(Size, st.integers(1, 300), st.integers(1, 300)),
    st.builds(Size, st.integers(1, 200), st.integers(1, 200)),
    st.sampled_from(["RGB", "L"]),
    st.sampled_from([Image.Resampling.BICUBIC, Image.Resampling.BILINEAR]),
)
def test_values_are_pillows_nearly(size: Size, target: Size, mode: str, method: Image.Resampling) -> None:
    picture = Reduced.whole(noise(size, mode))
    ours = np.stack(torch_scaled(picture, [target], method, None)[0]).astype(np.int16)
    theirs = np.stack(pillow_scaled(picture, [target], method, None)[0])
    difference = np.abs(ours - theirs)
    assert difference.shape == (3, target.height, target.width)
    # White noise is the worst case of bicubic weights of 16 bits, where rows are reduced.
    worst = method == Image.Resampling.BICUBIC and target.height < size.height
    assert difference.max() <= (32 if worst else 3)
    assert difference.mean() < 0.5


def test_real_pictures_differ_by_two_levels(data_dir: Path) -> None:
    for file in sorted((data_dir / "photos").rglob("*.jpg"))[:3]:
        picture = Reduced.whole(Image.open(file).convert("RGB").reduce(2))
        target = Size(picture.image.width * 3 // 4, picture.image.height * 3 // 4)
        scaled = (way(picture, [target], Image.Resampling.BICUBIC, None)[0] for way in (torch_scaled, pillow_scaled))
        ours, theirs = (np.stack(planes).astype(np.int16) for planes in scaled)
        assert np.abs(ours - theirs).max() <= 2


@settings(deadline=None, max_examples=20)
@given(st.tuples(st.integers(2, 6), st.integers(1, 6)), st.sampled_from(["RGB", "L"]))
def test_whole_pixels_are_averaged_as_pillow_does(factors: tuple[int, int], mode: str) -> None:
    picture = Reduced.whole(noise(Size(60 * factors[0], 60 * factors[1]), mode))
    sizes = [Size(35, 33)]
    ours, theirs = (
        np.stack(way(picture, sizes, Image.Resampling.BILINEAR, REDUCING_GAP)[0]).astype(np.int16)
        for way in (torch_scaled, pillow_scaled)
    )
    assert np.abs(ours - theirs).max() <= 3


def test_fractions_of_pixels_and_other_filters_are_pillows() -> None:
    picture = Reduced.whole(noise(Size(400, 301)))
    half = Reduced(picture.image, Size(801, 602), (0, 0, 399.5, 301))
    for given_picture, size, method in (
        (picture, Size(90, 75), Image.Resampling.BICUBIC),
        (picture, Size(390, 290), Image.Resampling.LANCZOS),
        (half, Size(390, 290), Image.Resampling.BICUBIC),
    ):
        ours, theirs = (way(given_picture, [size], method, REDUCING_GAP)[0] for way in (torch_scaled, pillow_scaled))
        np.testing.assert_array_equal(np.stack(ours), np.stack(theirs))


def test_several_sizes_are_each_alone() -> None:
    """One of them is averaged first, by Pillow; the others share the pixels."""
    picture = Reduced.whole(noise(Size(400, 300)))
    sizes = [Size(390, 290), Size(100, 75), Size(200, 200)]
    for way in (torch_scaled, pillow_scaled):
        together = way(picture, sizes, Image.Resampling.BICUBIC, REDUCING_GAP)
        assert len(together) == 3
        for one, size in zip(together, sizes, strict=True):
            alone = way(picture, [size], Image.Resampling.BICUBIC, REDUCING_GAP)[0]
            np.testing.assert_array_equal(np.stack(one), np.stack(alone))


def test_tiles_in_their_places() -> None:
    image = noise(Size(130, 61))
    tiling = plan_tiling(Size(130, 61), TilingSpec(tile_size=48))
    assert tiling.scaled != tiling.canvas
    ours = cut_tiles(Reduced.whole(image), tiling, Colour(1, 2, 3), scaler=torch_scaled)
    theirs = cut_tiles(Reduced.whole(image), tiling, Colour(1, 2, 3))
    assert np.abs(ours.astype(np.int16) - theirs).max() <= 3
