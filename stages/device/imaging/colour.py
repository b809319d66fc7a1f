"""Any Pillow mode to RGB, the way a viewer would show it.

Transparency lies on white; more than 8 bits are scaled, where Pillow's own conversion would clip them at 255.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Formats that say what white is: full scale, to which Pillow has already brought smaller ranges.
_FULL_SCALE_FORMATS = ("PNG", "PPM", "JPEG2000")
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded picture of any mode to RGB.

    What Pillow left on it besides pixels counts: the file format and TIFF's tags say what white is, `info` may name a
    transparent colour.
    """
    if image.mode in _DEEP_MODES:
        return _deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    # Pillow converts premultiplied grey to nothing but grey with alpha.
    layered = image.convert("LA") if image.mode == "La" else image
    # Each copy of a screen costs as much as decoding half of it.
    layered = layered if layered.mode == "RGBA" else layered.convert("RGBA")
    colours = layered.convert("RGB")
    alpha = layered.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours
    page = Image.new("RGB", image.size, WHITE)
    page.paste(colours, mask=alpha)
    return page


def _deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bits: black to 0, white to 255, linear between."""
    stored = np.asarray(image)  # [H, W]
    values = np.nan_to_num(stored.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    black, white = _range(values, image)
    grey = np.rint((values - black) * (255.0 / (white - black))).clip(0, 255).astype(np.uint8)
    if _tiff_tag(image, _TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[stored == transparent] = 255
    return Image.fromarray(grey)


def _range(values: np.ndarray, image: Image.Image) -> tuple[float, float]:
    """The values of black and white.

    TIFF and its like do not say: 8-bit values are often kept in 16- or 32-bit samples, and floats in 0…1. So white is
    the smallest usual full scale that holds the largest value; beyond those, and below zero, the values' own range.
    """
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and image.format in _FULL_SCALE_FORMATS:
        return 0.0, 65535.0
    if low < 0:
        return low, max(high, low + 1.0)
    usual = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    if _tiff_tag(image, _TIFF_BITS) == (12,):
        usual = [4095.0]
    return 0.0, next((scale for scale in usual if high <= scale), high)


def _tiff_tag(image: Image.Image, tag: int) -> object:
    """A tag of a picture read from TIFF; None elsewhere."""
    return getattr(image, "tag_v2", {}).get(tag)
