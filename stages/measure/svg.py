"""Charts as SVG text: shapes and labels whose colours come from the page's style, so that they fit light and dark.

Lengths are in the units of a figure's own view box; a page scales the whole figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Average width of a character in the sizes of the labels, a little more than system fonts have.
_CHARACTER = 0.6
LABEL = 13.0
SMALL = 11.0


def figure(width: float, height: float, shapes: Sequence[str], label: str) -> str:
    """A whole drawing; `label` says what it shows to those who cannot see it."""
    body = "\n".join(shapes)
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(label, quote=True)}" '
        f'style="max-width:{_n(width)}px">\n{body}\n</svg>'
    )


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """A label; y is its base line."""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" class="{css}">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, css: str, title: str = "") -> str:
    """A box; `title` is shown where a pointer rests on it."""
    hint = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" class="{css}">{hint}</rect>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{css}"/>'


def path_through(points: Sequence[tuple[float, float]], css: str) -> str:
    """A line through points."""
    return f'<polyline points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in points)}" class="{css}"/>'


def dot(x: float, y: float, css: str, title: str = "") -> str:
    """A point of a curve."""
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="3.5" class="{css}"><title>{escape(title)}</title></circle>'


def text_width(content: str, size: float = LABEL) -> float:
    """About how wide a label is."""
    return _CHARACTER * size * len(content)


@dataclass(frozen=True)
class Axis:
    """Values on a line of pixels, with round numbers as ticks.

    Attributes:
        low, high: the values at its ends.
        start, end: where these lie.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, *, from_zero: bool) -> Axis:
        """An axis that holds all values, and 0 if asked for."""
        low, high = min(values), max(values)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        step = _round_step((high - low) or abs(high) or 1.0)
        return cls(
            math.floor(low / step) * step,
            max(math.ceil(high / step - 1e-9), math.floor(low / step) + 1) * step,
            start,
            end,
        )

    def at(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values from end to end."""
        step = _round_step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number as a label: three digits, thousands as k, millions as M."""
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{sign}"
    return f"{value:.3g}"


def _round_step(span: float) -> float:
    """The distance of 1, 2 or 5 times a power of ten that cuts a span into about five."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10 * power)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
