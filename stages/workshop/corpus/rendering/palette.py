"""Named colours with room to vary, far enough apart that nobody would argue about the name."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.float32]


@dataclass(frozen=True)
class Hue:
    """A colour's name and where it lies: hue in degrees ± spread, saturation and value in 0…1 ± `SOFTNESS`."""

    name: str
    degrees: float
    spread: float
    saturation: float
    value: float


SOFTNESS = 0.1

PALETTE = (
    Hue("red", 0, 6, 0.9, 0.85),
    Hue("orange", 28, 5, 0.95, 0.95),
    Hue("yellow", 54, 5, 0.9, 0.93),
    Hue("green", 125, 18, 0.8, 0.65),
    Hue("blue", 222, 12, 0.85, 0.85),
    Hue("purple", 285, 10, 0.75, 0.68),
)
COLOURS = tuple(hue.name for hue in PALETTE)


def draw_colour(rng: np.random.Generator, name: str) -> Rgb:
    """A shade of a named colour: [3] RGB in 0…255.

    Raises:
        KeyError: no colour of the palette has that name.
    """
    hue = {hue.name: hue for hue in PALETTE}[name]
    degrees = (hue.degrees + rng.uniform(-hue.spread, hue.spread)) % 360
    saturation, value = np.clip(np.array([hue.saturation, hue.value]) + rng.uniform(-SOFTNESS, SOFTNESS, 2), 0, 1)
    return np.array(colorsys.hsv_to_rgb(degrees / 360, saturation, value), dtype=np.float32) * 255


def distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far colours are apart, 0…765: the sum over RGB of absolute differences along the last axis."""
    return np.abs(one - other).sum(axis=-1)


# Hues between the named ones, in degrees: cyan and pink.
_NAMELESS = ((165.0, 195.0), (315.0, 340.0))


def draw_nameless(rng: np.random.Generator) -> Rgb:
    """A colour that nobody is asked to name (cyan, pink, or too pale or dark for a name): [3] RGB in 0…255."""
    degrees = rng.uniform(*_NAMELESS[rng.integers(len(_NAMELESS))])
    return np.array(colorsys.hsv_to_rgb(degrees / 360, rng.random(), rng.uniform(0.1, 1)), dtype=np.float32) * 255
