"""Outlines of shapes as polygons that fill the box from -1 to 1 in both directions, y growing downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stages.device.imaging.geometry import Box, Size

Points = list[tuple[float, float]]
_SMOOTH = 48
_ARM = 0.36
_INNER = 0.4
# Edges are drawn at this many times the size and averaged down, so that they are smooth.
_OVERSAMPLING = 4


def _circle() -> Points:
    return [(math.cos(angle), math.sin(angle)) for angle in _turn(_SMOOTH)]


def _square() -> Points:
    return [(-1, -1), (1, -1), (1, 1), (-1, 1)]


def _triangle() -> Points:
    return [(0, -1), (1, 1), (-1, 1)]


def _star() -> Points:
    radii = [1 if index % 2 == 0 else _INNER for index in range(10)]
    return [
        (radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in zip(radii, _turn(10), strict=True)
    ]


def _cross() -> Points:
    a = _ARM
    upper = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
    return [*upper, (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


def _heart() -> Points:
    def height(angle: float) -> float:
        return 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)

    return [(math.sin(angle) ** 3, -height(angle)) for angle in _turn(_SMOOTH)]


def _diamond() -> Points:
    return [(0, -1), (1, 0), (0, 1), (-1, 0)]


def _arrow() -> Points:
    return [(-1, -0.4), (0, -0.4), (0, -1), (1, 0), (0, 1), (0, 0.4), (-1, 0.4)]


def _moon() -> Points:
    outer = [(-math.sin(angle), -math.cos(angle)) for angle in _turn(_SMOOTH)[: _SMOOTH // 2 + 1]]
    return outer + [(0.5 * x, y) for x, y in reversed(outer)]


def _turn(steps: int) -> list[float]:
    return [2 * math.pi * step / steps for step in range(steps)]


OUTLINES: Mapping[str, Callable[[], Points]] = MappingProxyType(
    {
        "circle": _circle,
        "square": _square,
        "triangle": _triangle,
        "star": _star,
        "cross": _cross,
    }
)
SHAPES = tuple(OUTLINES)
# Drawn, but never asked for.
NAMELESS_OUTLINES: Mapping[str, Callable[[], Points]] = MappingProxyType(
    {"heart": _heart, "diamond": _diamond, "arrow": _arrow, "moon": _moon}
)
NAMELESS_SHAPES = tuple(NAMELESS_OUTLINES)


def outline(shape: str, box: Box) -> Points:
    """The shape's corners in pixels, stretched so that they fill the box exactly.

    Raises:
        KeyError: there is no such shape.
    """
    points = np.array((OUTLINES.get(shape) or NAMELESS_OUTLINES[shape])())
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / (high - low) * (box.right - box.left, box.bottom - box.top) + (box.left, box.top)
    return [(float(x), float(y)) for x, y in scaled]


def cover(shape: str, box: Box, picture: Size) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: [height, width] in 0…1."""
    mask = Image.new("L", (picture.width * _OVERSAMPLING, picture.height * _OVERSAMPLING))
    # Pillow counts in centres of pixels and also fills those on the edge: half a fine pixel too much on each side.
    points = [(x * _OVERSAMPLING - 0.5, y * _OVERSAMPLING - 0.5) for x, y in outline(shape, box)]
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return np.asarray(mask.reduce(_OVERSAMPLING)).astype(np.float32) / np.float32(255)
