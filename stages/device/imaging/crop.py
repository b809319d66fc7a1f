"""Cutting a picture into the tiles of its tiling.

Axes: tiles, 3 = RGB, S = side of a tile in pixels, rows and cols of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.device.imaging.tiling import Tiling


class Colour(NamedTuple):
    """An 8-bit RGB colour."""

    red: int
    green: int
    blue: int


def padding_colour(image_mean: Sequence[float]) -> Colour:
    """The colour around a picture: the processor's mean (of values in 0…1), near 0 once normalized, as LLaVA pads."""
    red, green, blue = (int(value * 255) for value in image_mean)
    return Colour(red, green, blue)


def crop_tiles(image: Image.Image, tiling: Tiling, pad: Colour, resample: str = "bicubic") -> np.ndarray:
    """The thumbnail, where there is one, then the local tiles row by row.

    Args:
        image: upright RGB, of the tiling's size.
        tiling: the decision for that size.
        pad: colour of the canvas around the picture.
        resample: Pillow's name of the filter (bicubic, bilinear, lanczos, nearest).

    Returns:
        uint8 [tiles, 3, S, S].

    Raises:
        ValueError: the picture is not RGB of the tiling's size, or the filter is unknown.
    """
    if image.mode != "RGB" or image.size != tiling.size:
        raise ValueError(f"{image.mode} of {image.size} does not fit a tiling of RGB {tuple(tiling.size)}")
    if resample.upper() not in Image.Resampling.__members__:
        raise ValueError(f"unknown filter {resample!r}")
    method = Image.Resampling[resample.upper()]
    side, (cols, rows) = tiling.tile_size, tiling.grid
    tiles = np.empty((tiling.tiles, 3, side, side), np.uint8)
    local = draw_canvas(image, tiling, pad, method)  # [rows·S, cols·S, 3]
    local = local.reshape(rows, side, cols, side, 3)  # [rows, S, cols, S, 3]
    local = local.transpose(0, 2, 4, 1, 3)  # [rows, cols, 3, S, S]
    tiles[-rows * cols :] = local.reshape(rows * cols, 3, side, side)  # [rows·cols, 3, S, S]
    if tiling.has_thumbnail:
        tiles[0] = np.asarray(image.resize((side, side), method)).transpose(2, 0, 1)  # [3, S, S]
    return tiles


def draw_canvas(image: Image.Image, tiling: Tiling, pad: Colour, method: Image.Resampling) -> np.ndarray:
    """The picture scaled to its place on the canvas, the rest in the padding colour: uint8 [rows·S, cols·S, 3]."""
    scaled = np.asarray(image.resize(tiling.scaled, method))
    if tiling.scaled == tiling.canvas:
        return scaled
    canvas = np.empty((tiling.canvas.height, tiling.canvas.width, 3), np.uint8)
    canvas[:] = pad
    place = tiling.picture
    canvas[place.top : place.bottom, place.left : place.right] = scaled
    return canvas


def normalize(tiles: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(value / 255 - mean) / std per channel: uint8 [tiles, 3, S, S] -> float32 of the same shape."""
    deviation = 255.0 * np.asarray(std, np.float64)
    factor = (1.0 / deviation).astype(np.float32).reshape(3, 1, 1)
    shift = (-255.0 * np.asarray(mean, np.float64) / deviation).astype(np.float32).reshape(3, 1, 1)
    pixels: np.ndarray = np.multiply(tiles, factor, dtype=np.float32)
    pixels += shift
    return pixels
