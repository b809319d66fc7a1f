"""Tiles cut fast against Pillow's filter over all pixels: the same within stated tolerances, exactly where asked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from stages.artifacts.errors import ImageError
from stages.device.imaging.crop import Colour, crop_tiles, needed_sides
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import REDUCING_GAP, load_image, load_reduced
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling

PAD = Colour(10, 120, 240)
# Per picture, in 1/255: what the difference to plain bicubic scaling stays below.
MEAN, PERCENTILE_99 = 2.0, 12.0


def plan(size: Size, most: int = 4, side: int = 48) -> Tiling:
    return plan_tiling(size, TilingSpec(tile_size=side, max_cols=most, max_rows=most))


def soft(size: Size, seed: int = 0) -> Image.Image:
    """Colours that change smoothly, as in a photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif, **options)
    return stream.getvalue()


def plain(image: Image.Image, tiling: Tiling) -> np.ndarray:
    """The tiles by nothing but Pillow's resize, paste and crop."""
    canvas = Image.new("RGB", tiling.canvas, PAD)
    canvas.paste(image.resize(tiling.scaled, Image.Resampling.BICUBIC), tiling.picture[:2])
    side = (tiling.tile_size, tiling.tile_size)
    cut = [image.resize(side, Image.Resampling.BICUBIC)] if tiling.has_thumbnail else []
    cut += [canvas.crop(box) for box in tiling.boxes]
    return np.stack([np.moveaxis(np.asarray(tile), 2, 0) for tile in cut])


def pictures_of(folder: Path) -> list[Path]:
    found = sorted(path for kind in ("jpg", "jpeg", "png") for path in folder.rglob(f"*.{kind}"))
    return [path for path in found if "truncated" not in path.name]


def near_plain(path: Path, most: int) -> bool:
    """Whether tiles differ from plain bicubic scaling at all; never by more than is stated, and not where asked."""
    cut = cut_picture(path, path.name, lambda size: plan(size, most, 384), PAD)
    expected = plain(load_image(path), cut.tiling)
    difference = np.abs(cut.tiles.astype(np.int16) - expected)
    assert difference.mean() < MEAN, (path, difference.mean())
    assert np.percentile(difference, 99) < PERCENTILE_99, (path, np.percentile(difference, 99))
    exact = cut_picture(path, path.name, lambda size: plan(size, most, 384), PAD, exact=True)
    np.testing.assert_array_equal(exact.tiles, expected)
    return bool(difference.any())


@pytest.mark.parametrize("most", [1, 2])
def test_real_pictures_differ_little_from_plain_bicubic(data_dir: Path, most: int) -> None:
    # Page and photo of the most detail, and some of every kind.
    chosen = [data_dir / "ocr" / "hebtypo.jpg", *pictures_of(data_dir / "photos" / "llava")]
    chosen += [path for folder in ("photos", "screens", "ocr") for path in pictures_of(data_dir / folder)[::8]]
    assert sum(near_plain(path, most) for path in chosen if path.is_file()) > 2


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["photos", "screens", "ocr", "sroie60"])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_all_real_pictures_differ_little_from_plain_bicubic(data_dir: Path, folder: str, most: int) -> None:
    compared = [near_plain(path, most) for path in pictures_of(data_dir / folder)]
    assert any(compared)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [Size(401, 307), Size(800, 600), Size(1603, 211)])
def test_a_turned_jpeg_is_decoded_small_and_lies_in_its_place(size: Size, orientation: int) -> None:
    data = encoded(soft(size), orientation=orientation, quality=95)
    picture = load_reduced(data, "turned", lambda upright: Size(40, 40))
    assert picture.size == (size if orientation < 5 else Size(size.height, size.width))
    assert picture.image.width < picture.size.width / 1.9
    fast = cut_picture(data, "turned", lambda upright: plan(upright, 2, 24), PAD)
    expected = plain(load_image_of(data), fast.tiling)
    difference = np.abs(fast.tiles.astype(np.int16) - expected)
    # Half a stored pixel beside its place would show as a shift: a mean beyond 1 here.
    assert difference.mean() < 0.8, difference.mean()
    assert np.percentile(difference, 99) < 8


def load_image_of(data: bytes) -> Image.Image:
    return load_reduced(data, "whole", lambda size: None).image.convert("RGB")


@settings(deadline=None, max_examples=40)
@given(st.builds(Size, st.integers(1, 600), st.integers(1, 600)), st.integers(1, 3), st.sampled_from([24, 48]))
def test_no_picture_is_decoded_smaller_than_needed(size: Size, most: int, side: int) -> None:
    tiling = plan(size, most, side)
    needed = needed_sides(tiling)
    picture = load_reduced(encoded(soft(size)), "any", lambda upright: needed)
    for decoded, full, wanted in zip(picture.image.size, size, needed, strict=True):
        assert decoded == full or decoded >= wanted * REDUCING_GAP - 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_pictures_are_scaled_in_one_channel_to_the_same_values(kind: str) -> None:
    grey = soft(Size(300, 200)).convert("L")
    cut = cut_picture(encoded(grey, kind), "grey", lambda size: plan(size, 3), PAD)
    stored = load_image_of(encoded(grey, kind))
    assert stored.mode == "RGB"
    np.testing.assert_array_equal(cut.tiles, crop_tiles(stored, cut.tiling, PAD))


def test_nearest_is_never_averaged() -> None:
    data = encoded(soft(Size(900, 700)))
    cut = cut_picture(data, "nearest", lambda size: plan(size, 1, 24), PAD, "nearest")
    exact = cut_picture(data, "nearest", lambda size: plan(size, 1, 24), PAD, "nearest", exact=True)
    np.testing.assert_array_equal(cut.tiles, exact.tiles)


def test_a_file_and_its_bytes_give_the_same_tiles(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(soft(Size(1000, 800))))
    from_file = cut_picture(path, str(path), plan, PAD)
    np.testing.assert_array_equal(from_file.tiles, cut_picture(path.read_bytes(), "bytes", plan, PAD).tiles)


def test_broken_bytes_are_named() -> None:
    data = encoded(soft(Size(900, 700)))
    with pytest.raises(ImageError, match=r"cut\.jpg is a broken picture"):
        cut_picture(data[: len(data) // 2], "cut.jpg", plan, PAD)
    with pytest.raises(ImageError, match="empty"):
        cut_picture(b"", "cut.jpg", plan, PAD)
