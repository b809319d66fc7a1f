"""Textured backgrounds in two colours, any of them but the shape's own.

Axes: H, W = height and width of the picture; the last axis is RGB in 0…255.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.palette import Rgb, distance

Texture = NDArray[np.float32]

# A background's two colours are at least this far from the shape's (see `palette.distance`).
FAR = 150.0
# Mixtures of the two may come nearer, but few pixels nearer than this.
NEAR = 110.0
_TRIES = 100
_GRAIN = 14.0


def _plain(rng: np.random.Generator, size: Size) -> Texture:
    return np.zeros((size.height, size.width), dtype=np.float32)


def _gradient(rng: np.random.Generator, size: Size) -> Texture:
    ramp = _ramp(rng, size)
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def _stripes(rng: np.random.Generator, size: Size) -> Texture:
    waves = _ramp(rng, size) * rng.uniform(3, 10) + rng.random()
    return (waves % 1 < rng.uniform(0.3, 0.7)).astype(np.float32)


def _noise(rng: np.random.Generator, size: Size) -> Texture:
    coarse = rng.random((8, 8), dtype=np.float32)
    blocks = np.asarray(Image.fromarray(coarse).resize((size.width, size.height), Image.Resampling.NEAREST))
    return np.clip(blocks + 0.3 * rng.standard_normal((size.height, size.width), dtype=np.float32), 0, 1)


def _blobs(rng: np.random.Generator, size: Size) -> Texture:
    coarse = rng.random((5, 5), dtype=np.float32)
    blobs = np.asarray(Image.fromarray(coarse).resize((size.width, size.height), Image.Resampling.BICUBIC))
    return np.clip(blobs, 0, 1)


def _ramp(rng: np.random.Generator, size: Size) -> Texture:
    """Distance along a random direction, the shorter side being 1: [H, W]."""
    angle, side = rng.uniform(0, 2 * math.pi), min(size)
    rows, columns = np.mgrid[0 : size.height, 0 : size.width].astype(np.float32) / side
    return (columns * math.cos(angle) + rows * math.sin(angle)).astype(np.float32)


TEXTURES: Mapping[str, Callable[[np.random.Generator, Size], Texture]] = MappingProxyType(
    {"plain": _plain, "gradient": _gradient, "stripes": _stripes, "noise": _noise, "blobs": _blobs}
)


def background(rng: np.random.Generator, size: Size, names: tuple[str, ...], saturation: float, shape: Rgb) -> Texture:
    """A texture with a little grain, on which a shape of this colour can be seen: [H, W, 3].

    Args:
        rng: where chance comes from.
        size: of the picture.
        names: textures to choose from, keys of `TEXTURES`.
        saturation: most saturated a background may be, 0…1.
        shape: the shape's colour.
    """
    for _ in range(_TRIES):
        texture = TEXTURES[names[rng.integers(len(names))]](rng, size)
        one, other = _colour(rng, saturation, shape), _colour(rng, saturation, shape)
        mixed = one + (other - one) * texture[..., None]  # [H, W, 3]
        if float(np.quantile(distance(mixed, shape), 0.1)) > NEAR:
            break
    return grain(rng, mixed, _GRAIN)


def grain(rng: np.random.Generator, picture: Texture, most: float) -> Texture:
    """The picture with noise of a random strength up to `most` levels."""
    strength = np.float32(rng.uniform(0, most))
    return picture + strength * rng.standard_normal(picture.shape, dtype=np.float32)


def _colour(rng: np.random.Generator, saturation: float, shape: Rgb) -> Rgb:
    """Any colour that is no more saturated than that, far from the shape's."""
    for _ in range(_TRIES):
        found = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, saturation), rng.uniform(0.15, 1))
        rgb = np.array(found, dtype=np.float32) * 255
        if distance(rgb, shape) > FAR:
            break
    return rgb
