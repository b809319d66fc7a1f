"""Cutting a picture into the tiles of its tiling.

Axes: tiles, 3 = RGB, S = side of a tile in pixels, rows and cols of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import REDUCING_GAP, Reduced
from stages.device.imaging.tiling import Tiling

# Red, green and blue of a scaled picture, uint8 [height, width] each.
Planes = Sequence[np.ndarray]
# One picture in all the sizes it is needed in.
Scaler = Callable[[Reduced, Sequence[Size], Image.Resampling, float | None], list[Planes]]


class Colour(NamedTuple):
    """An 8-bit RGB colour."""

    red: int
    green: int
    blue: int


def padding_colour(image_mean: Sequence[float]) -> Colour:
    """The colour around a picture: the processor's mean (of values in 0…1), near 0 once normalized, as LLaVA pads."""
    red, green, blue = (int(value * 255) for value in image_mean)
    return Colour(red, green, blue)


def crop_tiles(
    image: Image.Image, tiling: Tiling, pad: Colour, resample: str = "bicubic", *, exact: bool = False
) -> np.ndarray:
    """The tiles of a decoded picture: `cut_tiles`, for a picture in its full size."""
    return cut_tiles(Reduced.whole(image), tiling, pad, resample, exact=exact)


def pillow_scaled(picture: Reduced, sizes: Sequence[Size], method: Image.Resampling, gap: float | None) -> list[Planes]:
    """Pillow's filter; with a gap, whole pixels are averaged first to no less than so many times the size."""
    made: list[Planes] = []
    for size in sizes:
        scaled = picture.image.resize(size, method, picture.box, gap)
        bands = scaled.split() if scaled.mode == "RGB" else (scaled,) * 3
        made.append([np.asarray(band) for band in bands])
    return made


def cut_tiles(
    picture: Reduced,
    tiling: Tiling,
    pad: Colour,
    resample: str = "bicubic",
    *,
    exact: bool = False,
    scaler: Scaler = pillow_scaled,
) -> np.ndarray:
    """The thumbnail, where there is one, then the local tiles row by row.

    Args:
        picture: upright RGB or grey, of the tiling's size, or decoded smaller.
        tiling: the decision for that size.
        pad: colour of the canvas around the picture.
        resample: Pillow's name of the filter (bicubic, bilinear, lanczos, nearest).
        exact: apply the filter to all pixels; otherwise much larger pictures are first averaged in whole pixels, to no
            less than `REDUCING_GAP` times their place.
        scaler: what scales; another one must give Pillow's values, nearly.

    Returns:
        uint8 [tiles, 3, S, S].

    Raises:
        ValueError: the picture is of another mode, or its size not the tiling's, or the filter is unknown.
    """
    if picture.image.mode not in ("RGB", "L") or picture.size != tiling.size:
        raise ValueError(f"{picture.image.mode} of {picture.size} does not fit a tiling of RGB {tuple(tiling.size)}")
    if resample.upper() not in Image.Resampling.__members__:
        raise ValueError(f"unknown filter {resample!r}")
    method, gap = Image.Resampling[resample.upper()], None if exact else REDUCING_GAP
    side, (cols, rows) = tiling.tile_size, tiling.grid
    tiles = np.empty((tiling.tiles, 3, side, side), np.uint8)
    local = tiles[-rows * cols :].reshape(rows, cols, 3, side, side)
    sizes = [tiling.scaled, Size(side, side)] if tiling.has_thumbnail else [tiling.scaled]
    whole, *thumbnails = scaler(picture, sizes, method, gap)
    for channel, scaled in enumerate(whole):
        plane = _on_canvas(scaled, tiling, pad[channel])  # [rows·S, cols·S]
        local[:, :, channel] = plane.reshape(rows, side, cols, side).transpose(0, 2, 1, 3)  # [rows, cols, S, S]
    for thumbnail in thumbnails:
        for channel, scaled in enumerate(thumbnail):
            tiles[0, channel] = scaled  # [S, S]
    return tiles


def needed_sides(tiling: Tiling) -> Size:
    """The largest sides that a picture is scaled to: on the canvas, or as the thumbnail."""
    if not tiling.has_thumbnail:
        return tiling.scaled
    return Size(max(tiling.scaled.width, tiling.tile_size), max(tiling.scaled.height, tiling.tile_size))


def _on_canvas(scaled: np.ndarray, tiling: Tiling, pad: int) -> np.ndarray:
    """One channel of the scaled picture in its place, the rest in the padding: uint8 [rows·S, cols·S]."""
    if tiling.scaled == tiling.canvas:
        return scaled
    canvas = np.full((tiling.canvas.height, tiling.canvas.width), pad, np.uint8)
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
