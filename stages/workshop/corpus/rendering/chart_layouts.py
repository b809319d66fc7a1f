"""Charts drawn with typst's primitives, all lengths in `em`: columns, bars, lines, dots, pies and rings.

Axes of a plot: x to the right, y downwards, from its top left corner.
"""

from __future__ import annotations

import colorsys
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering.room import LETTER
from stages.workshop.corpus.rendering.typeset import quoted

_GRID = "0.04em + gray.transparentize(45%)"
_AXIS = "0.07em + gray"
# Height of a line of text that stands alone, and a gap.
_TEXT, _GAP = 1.25, 0.35
_DEGREES = 5
_RADII = {"pie": 0.0, "pie-labels": 0.0, "ring": 0.55}


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: above it; empty for none.
        names, values: of its categories.
        step: between the ticks of its axis.
        ticks: how many steps its axis has; 0 for no axis.
        printed: the values stand beside what shows them; otherwise each lies on a tick.
    """

    title: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    step: int
    ticks: int
    printed: bool

    @property
    def top(self) -> int:
        """The value at the end of the axis."""
        return self.step * self.ticks if self.ticks else max(self.values)


@dataclass(frozen=True)
class Style:
    """Colours of the categories, "#rrggbb"."""

    colours: tuple[str, ...]


def draw_style(rng: np.random.Generator, count: int, dark: bool, one: bool) -> Style:
    """Colours that stand out from the paper and, where there are several, from one another."""
    start, turn = rng.random(), 1 if rng.random() < 0.5 else -1
    low, high = (0.75, 1.0) if dark else (0.45, 0.85)
    value, saturation = rng.uniform(low, high), rng.uniform(0.45, 0.95)
    colours = []
    for index in range(count):
        hue = start if one else start + turn * index / count
        # Neighbours differ in brightness too.
        bright = value if one else min(1.0, value * (1.0 if index % 2 else 0.8))
        rgb = colorsys.hsv_to_rgb(hue % 1, saturation, bright)
        colours.append("#" + "".join(f"{round(255 * level):02x}" for level in rgb))
    return Style(tuple(colours))


def markup(chart: Chart, style: Style, layout: str, width: float, height: float) -> str:
    """A chart as typst markup that fills that many em."""
    top = _TEXT + _GAP if chart.title else 0.0
    parts = [_place(0, 0, f"box(width: {width:.2f}em, align(center, {_strong(chart.title)}))")] if chart.title else []
    plot = _PLOTS[layout](chart, style, layout, width, height - top)
    parts.append(_place(0, top, f"box(width: {width:.2f}em, height: {height - top:.2f}em, {{ {plot} }})"))
    return f"#box(width: {width:.2f}em, height: {height:.2f}em, {{ {'; '.join(parts)} }})"


def _upright(chart: Chart, style: Style, layout: str, width: float, height: float) -> str:
    """Columns, dots or a line over names."""
    left = tick_letters(chart) * LETTER + 2 * _GAP if chart.ticks else _GAP
    top, bottom = (_TEXT if chart.printed else 0.6 * _TEXT), height - _TEXT - _GAP
    slot = (width - left) / len(chart.names)

    def level(value: float) -> float:
        return bottom - (bottom - top) * value / chart.top

    parts = []
    for tick in range(chart.ticks + 1 if chart.ticks else 0):
        y = level(tick * chart.step)
        parts.append(_line(left, y, width, y, _AXIS if tick == 0 else _GRID))
        parts.append(_label(left - _GAP, y, str(tick * chart.step), "right"))
    if not chart.ticks:
        parts.append(_line(left, bottom, width, bottom, _AXIS))
    points = [(left + (index + 0.5) * slot, level(value)) for index, value in enumerate(chart.values)]
    parts += _MARKS[layout](points, bottom, slot, style)
    for (x, y), name, value in zip(points, chart.names, chart.values, strict=True):
        parts.append(_label(x, bottom + _GAP + _TEXT / 2, name, "center"))
        if chart.printed:
            parts.append(_label(x, y - 0.35 - _TEXT / 2, str(value), "center"))
    return "; ".join(parts)


def _columns(points: list[tuple[float, float]], bottom: float, slot: float, style: Style) -> list[str]:
    wide = 0.62 * slot
    return [_rect(x - wide / 2, y, wide, bottom - y, fill) for (x, y), fill in zip(points, style.colours, strict=True)]


def _line_marks(points: list[tuple[float, float]], bottom: float, slot: float, style: Style) -> list[str]:
    pairs = itertools.pairwise(points)
    stroke = f"0.14em + rgb({quoted(style.colours[0])})"
    return [*(_line(*one, *other, stroke) for one, other in pairs), *_dots(points, style.colours[0])]


def _stems(points: list[tuple[float, float]], bottom: float, slot: float, style: Style) -> list[str]:
    strokes = [f"0.12em + rgb({quoted(fill)})" for fill in style.colours]
    stems = [_line(x, y, x, bottom, stroke) for (x, y), stroke in zip(points, strokes, strict=True)]
    return [*stems, *(_dots([point], fill)[0] for point, fill in zip(points, style.colours, strict=True))]


def _dots(points: list[tuple[float, float]], fill: str) -> list[str]:
    return [_place(x - 0.25, y - 0.25, f"circle(radius: 0.25em, fill: rgb({quoted(fill)}))") for x, y in points]


_MARKS = MappingProxyType({"columns": _columns, "line": _line_marks, "stems": _stems})


def _bars(chart: Chart, style: Style, layout: str, width: float, height: float) -> str:
    """Bars to the right of names."""
    left = max(map(len, chart.names)) * LETTER + 2 * _GAP
    right = width - (tick_letters(chart) * LETTER + 2 * _GAP if chart.printed else tick_letters(chart) * LETTER / 2)
    bottom = height - (_TEXT + _GAP if chart.ticks else 0)
    slot = bottom / len(chart.names)
    parts = []
    for tick in range(chart.ticks + 1 if chart.ticks else 0):
        x = left + (right - left) * tick / chart.ticks
        parts.append(_line(x, 0, x, bottom, _AXIS if tick == 0 else _GRID))
        parts.append(_label(x, bottom + _GAP + _TEXT / 2, str(tick * chart.step), "center"))
    for index, (name, value) in enumerate(zip(chart.names, chart.values, strict=True)):
        middle, long = (index + 0.5) * slot, (right - left) * value / chart.top
        parts.append(_rect(left, middle - 0.32 * slot, long, 0.64 * slot, style.colours[index]))
        parts.append(_label(left - _GAP, middle, name, "right"))
        if chart.printed:
            parts.append(_label(left + long + _GAP, middle, str(value), "left"))
    return "; ".join(parts)


def _pie(chart: Chart, style: Style, layout: str, width: float, height: float) -> str:
    """Slices of a circle, named in a legend or beside them."""
    named = layout == "pie-labels"
    legend_wide, legend_high = legend_size(chart, layout)
    beside = not named and min(width - legend_wide, height) >= min(width, height - legend_high)
    wide = width - (legend_wide + _GAP if beside else 0.0)
    high = height - (0.0 if beside or named else legend_high + _GAP)
    around = (label_letters(chart) * LETTER + 2 * _GAP, 2 * _TEXT) if named else (0.0, 0.0)
    radius = min(wide / 2 - around[0], high / 2 - around[1]) * 0.97
    centre = (wide / 2, high / 2)
    parts, turned = [], 0.0
    for name, value, fill in zip(chart.names, chart.values, style.colours, strict=True):
        share = value / sum(chart.values)
        parts.append(_slice(centre, radius, _RADII[layout] * radius, turned, turned + share, fill))
        across, down = _direction(turned + share / 2)
        if named:
            side = "left" if across > 0.3 else "right" if across < -0.3 else "center"
            # A label beside the slice stands against its edge; one above or below it, over its middle.
            out = radius + (_GAP if side != "center" else 0.8 * _TEXT)
            parts.append(_label(centre[0] + out * across, centre[1] + out * down, f"{name} {value}", side))
        elif layout == "pie":
            place = 0.68 * radius
            parts.append(_plate(centre[0] + place * across, centre[1] + place * down, str(value)))
        turned += share
    if not named:
        x, y = (wide + _GAP, (height - legend_high) / 2) if beside else ((width - legend_wide) / 2, high + _GAP)
        parts.append(_legend(chart, style, layout, x, y))
    return "; ".join(parts)


def _legend(chart: Chart, style: Style, layout: str, left: float, top: float) -> str:
    parts = []
    for index, (name, value) in enumerate(zip(chart.names, chart.values, strict=True)):
        middle = top + (index + 0.5) * _TEXT
        parts.append(_rect(left, middle - 0.35, 0.7, 0.7, style.colours[index]))
        parts.append(_label(left + 1.0, middle, name if layout == "pie" else f"{name} {value}", "left"))
    return "; ".join(parts)


def _slice(centre: tuple[float, float], radius: float, inner: float, start: float, end: float, fill: str) -> str:
    """Part of a ring between two shares of a turn, from twelve o'clock."""
    steps = max(2, math.ceil((end - start) * 360 / _DEGREES))
    turns = [start + (end - start) * step / steps for step in range(steps + 1)]
    outer = [(centre[0] + radius * _direction(turn)[0], centre[1] + radius * _direction(turn)[1]) for turn in turns]
    within = [(centre[0] + inner * _direction(turn)[0], centre[1] + inner * _direction(turn)[1]) for turn in turns]
    points = outer + (within[::-1] if inner else [centre])
    corners = ", ".join(f"({x:.3f}em, {y:.3f}em)" for x, y in points)
    return f"place(top + left, polygon(fill: rgb({quoted(fill)}), stroke: 0.06em + white, {corners}))"


def _direction(turn: float) -> tuple[float, float]:
    return math.sin(2 * math.pi * turn), -math.cos(2 * math.pi * turn)


def tick_letters(chart: Chart) -> int:
    """Digits of the widest number."""
    return len(str(max(chart.top, *chart.values)))


def label_letters(chart: Chart) -> int:
    """Letters of the longest name with its value."""
    return max(len(f"{name} {value}") for name, value in zip(chart.names, chart.values, strict=True))


def legend_size(chart: Chart, layout: str) -> tuple[float, float]:
    """Width and height of a pie's legend in em."""
    if layout == "pie-labels":
        return 0.0, 0.0
    letters = max(map(len, chart.names)) if layout == "pie" else label_letters(chart)
    return 1.0 + letters * LETTER + _GAP, len(chart.names) * _TEXT


_PLOTS: Mapping[str, Callable[[Chart, Style, str, float, float], str]] = MappingProxyType(
    {
        "columns": _upright,
        "bars": _bars,
        "line": _upright,
        "stems": _upright,
        "pie": _pie,
        "pie-labels": _pie,
        "ring": _pie,
    }
)
LAYOUTS = tuple(_PLOTS)


def _place(x: float, y: float, body: str) -> str:
    return f"place(top + left, dx: {x:.3f}em, dy: {y:.3f}em, {body})"


def _line(x: float, y: float, right: float, bottom: float, stroke: str) -> str:
    ends = f"start: ({x:.3f}em, {y:.3f}em), end: ({right:.3f}em, {bottom:.3f}em)"
    return f"place(top + left, line({ends}, stroke: {stroke}))"


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return _place(x, y, f"rect(width: {width:.3f}em, height: {height:.3f}em, fill: rgb({quoted(fill)}))")


def _label(x: float, y: float, text: str, side: str) -> str:
    """Text whose left edge, middle or right edge is at x, its middle at y."""
    wide = len(text) * LETTER + 1
    left = {"left": x, "center": x - wide / 2, "right": x - wide}[side]
    body = f"box(width: {wide:.3f}em, height: {_TEXT}em, align({side} + horizon, text({quoted(text)})))"
    return _place(left, y - _TEXT / 2, body)


def _plate(x: float, y: float, text: str) -> str:
    """Text on a light plate, centred."""
    wide = len(text) * LETTER + 0.3
    plate = (
        f"box(width: {wide:.3f}em, height: {_TEXT}em, fill: white, radius: 0.2em, "
        f"align(center + horizon, text(fill: black, {quoted(text)})))"
    )
    return _place(x - wide / 2, y - _TEXT / 2, plate)


def _strong(text: str) -> str:
    return f'text(weight: "bold", {quoted(text)})'
