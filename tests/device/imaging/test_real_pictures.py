"""Every file of the real data is a picture or one clear error; the EXIF series show one scene."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import ImageError
from stages.device.imaging.loading import check_image, load_image, read_size
from stages.device.imaging.reading import make_in_order
from stages.device.imaging.sources import PICTURE_SUFFIXES

# The pictures that are broken on purpose, or that Pillow cannot read.
BROKEN = {
    "bmp__b__badwidth.bmp",
    "broken.png",
    "broken_data_stream.png",
    "decompression_bomb.gif",
    "decompression_bomb.ico",
    "truncated_image.png",
    "zero_width.gif",
    "multipage_rgb.tif",
    "truncated.jpg",
    "zero_bytes.jpg",
    "cut_30000_Landscape_6.jpg",
}


def read_both_ways(path: Path) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """Mode and size once decoded, and the size by the header."""
    image = load_image(path)
    return image.mode, image.size, read_size(path)


def test_every_file_is_upright_rgb_or_one_error(data_dir: Path) -> None:
    files = sorted(path for path in data_dir.rglob("*") if path.is_file() and "exif" not in path.parent.name)
    assert len(files) > 250
    pictures, failed = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, result in zip(files, make_in_order(read_both_ways, files), strict=True):
            if isinstance(result, ImageError):
                failed.add(path)
                assert path.name in result.what
                assert result.why
                assert result.fix
            else:
                pictures += 1
                mode, size, header = result
                assert mode == "RGB"
                assert size == header
    assert pictures > 130
    for path in failed:
        assert path.name in BROKEN or path.suffix.lower() not in PICTURE_SUFFIXES, path


def test_the_edge_cases_that_load_are_all_but_the_broken_ones(data_dir: Path) -> None:
    for path in sorted((data_dir / "img_edge").iterdir()):
        if path.suffix != ".txt":
            try:
                size = check_image(path)
            except ImageError:
                assert path.name in BROKEN, path.name
            else:
                assert path.name not in BROKEN, path.name
                assert min(size) >= 1


@pytest.mark.parametrize("scene", ["Landscape", "Portrait"])
def test_all_exif_orientations_show_the_same_scene(data_dir: Path, scene: str) -> None:
    files = [data_dir / "photos" / "exif" / f"{scene}_{number}.jpg" for number in range(9)]
    wide = scene == "Landscape"
    small = []
    for path, image in zip(files, make_in_order(load_image, files), strict=True):
        assert isinstance(image, Image.Image)
        assert image.size == read_size(path)
        assert (image.width > image.height) == wide
        small.append(np.asarray(image.resize((60, 40)), float))
    for other in small[1:]:
        # The number drawn into each picture differs, the scene does not.
        assert np.abs(other - small[0]).mean() < 12
        assert np.corrcoef(other.ravel(), small[0].ravel())[0, 1] > 0.95


def test_deep_and_transparent_pictures_look_right(data_dir: Path) -> None:
    edge = data_dir / "img_edge"
    ramp = np.asarray(load_image(edge / "16_bit_binary.pgm"))[..., 0]
    assert (ramp.min(), ramp.max()) == (0, 255)
    board = np.asarray(load_image(data_dir / "photos" / "skimage" / "chessboard_GRAY_U16.tif"))
    assert (board.min(), board.max()) == (0, 255)
    assert 100 < board.mean() < 155
    for name in ("1_trns.png", "l_trns.png", "p_trns_single.png", "rgb_trns.png"):
        with Image.open(edge / name) as stored:
            transparent = np.asarray(stored.convert("RGBA"))[..., 3] == 0
        assert transparent.any(), name
        assert (np.asarray(load_image(edge / name))[transparent] == 255).all(), name


def test_an_animation_bomb_behind_the_first_frame_is_never_reached(data_dir: Path) -> None:
    assert load_image(data_dir / "img_edge" / "decompression_bomb_extents.gif").size == (100, 100)
