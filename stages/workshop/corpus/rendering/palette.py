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
    Hue("red", 0, 5, 0.9, 0.85),
    Hue("orange", 28, 5, 0.95, 0.95),
    Hue("yellow", 54, 5, 0.9, 0.93),
    Hue("green", 125, 10, 0.8, 0.65),
    Hue("blue", 222, 8, 0.85, 0.85),
    Hue("purple", 285, 8, 0.75, 0.68),
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


# Hues between the named ones, in degrees, a little away from both.
GAPS = ((11.0, 18.0), (38.0, 44.0), (64.0, 107.0), (143.0, 206.0), (238.0, 269.0), (301.0, 349.0))
_PALE = 0.2


def draw_nameless(rng: np.random.Generator) -> Rgb:
    """A colour nobody is asked to name, because it lies between names or is pale: [3] RGB in 0…255."""
    if rng.random() < _PALE:
        degrees, saturation, value = rng.uniform(0, 360), rng.uniform(0, 0.5), rng.uniform(0.2, 1)
    else:
        low, high = GAPS[rng.choice(len(GAPS), p=_weights())]
        degrees, saturation, value = rng.uniform(low, high), rng.uniform(0.6, 1), rng.uniform(0.5, 1)
    return np.array(colorsys.hsv_to_rgb(degrees / 360, saturation, value), dtype=np.float32) * 255


def _weights() -> NDArray[np.float64]:
    """Wide gaps are drawn more often, but less so than they are wide: narrow ones lie next to two names."""
    roots = np.sqrt([high - low for low, high in GAPS])
    return roots / roots.sum()
