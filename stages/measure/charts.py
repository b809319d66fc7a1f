"""Charts as data, drawn as SVG: bars with their samples and intervals, and lanes of what ran when.

The colours come from the page's style (`svg`), so that a chart fits light and dark; `chart_png` draws the same data
with matplotlib. Lengths are in the units of a figure's own view box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.measure.svg import (
    LABEL,
    SMALL,
    Axis,
    dot,
    figure,
    line,
    rectangle,
    text,
    text_width,
)

WIDTH = 860.0
_BAR, _GAP, _HEAD = 22.0, 12.0, 30.0
_LANE = 30.0
Colour = Literal["accent", "plain", "second", "paper"]


@dataclass(frozen=True)
class Bar:
    """One value.

    Attributes:
        label: what it is of.
        value: how long the bar is.
        colour: "accent" for ours, "second" for what stands out, "plain" for peers, "paper" for the paper's own.
        low, high: where its true median lies, by the samples.
        samples: each of them, as a dot.
        note: behind the value.
    """

    label: str
    value: float
    colour: Colour = "accent"
    low: float | None = None
    high: float | None = None
    samples: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Bars of one quantity in one unit."""

    title: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Bars:
    """Panels below one another; `name` is that of its files."""

    name: str
    title: str
    about: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Span:
    """Something that ran from `start` to `end`, in seconds."""

    start: float
    end: float
    label: str
    colour: Colour = "accent"


@dataclass(frozen=True)
class Lane:
    """What ran one after the other in one place; `group` heads the lanes that belong together."""

    group: str
    label: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Lanes:
    """Lanes over one axis of time."""

    name: str
    title: str
    about: str
    lanes: tuple[Lane, ...]


Chart = Bars | Lanes


def draw(chart: Chart) -> str:
    """The chart as SVG for a page that has the style."""
    return _bars(chart) if isinstance(chart, Bars) else _lanes(chart)


def _bars(chart: Bars) -> str:
    left = 12 + max(text_width(bar.label) for panel in chart.panels for bar in panel.bars)
    shapes: list[str] = []
    top = 0.0
    for panel in chart.panels:
        shapes.append(text(0, top + 14, panel.title, "label strong"))
        shapes.append(text(WIDTH, top + 14, panel.unit, "small faint", "end"))
        shapes += _panel(panel, left, top + _HEAD)
        top += _HEAD + len(panel.bars) * (_BAR + _GAP) + 14
    return figure(WIDTH, top - 14, shapes, chart.title)


def _panel(panel: Panel, left: float, top: float) -> Iterable[str]:
    right = 16 + max(text_width(_said(bar)) for bar in panel.bars)
    values = [value for bar in panel.bars for value in (bar.value, bar.high or 0.0, *bar.samples)]
    axis = Axis.around(values, left, WIDTH - right, from_zero=True)
    for index, bar in enumerate(panel.bars):
        y = top + index * (_BAR + _GAP)
        yield text(left - 10, y + 15.5, bar.label, "label", "end")
        yield rectangle(left, y, max(1.0, axis.at(bar.value) - left), _BAR, bar.colour, f"{bar.label}: {_said(bar)}")
        end = axis.at(max([bar.value, bar.high or 0.0, *bar.samples]))
        if bar.low is not None and bar.high is not None:
            low, high, middle = axis.at(bar.low), axis.at(bar.high), y + _BAR / 2
            yield line(low, middle, high, middle, "whisker")
            yield from (line(x, middle - 5, x, middle + 5, "whisker") for x in (low, high))
        yield from (
            dot(axis.at(sample), y + _BAR + 4, "sample", f"{sample:.4g} {panel.unit}") for sample in bar.samples
        )
        yield text(end + 8, y + 15.5, _said(bar), "label")


def _said(bar: Bar) -> str:
    return number(bar.value) + (f"  {bar.note}" if bar.note else "")


def number(value: float) -> str:
    """A value as a label: three digits, no exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _lanes(chart: Lanes) -> str:
    left = 12 + max(text_width(lane.label) for lane in chart.lanes)
    ends = [span.end for lane in chart.lanes for span in lane.spans]
    axis = Axis.around(ends, left, WIDTH - 20, from_zero=True)
    shapes: list[str] = []
    top, group = 0.0, None
    for lane in chart.lanes:
        if lane.group != group:
            top += 0.0 if group is None else 12.0
            shapes.append(text(0, top + 14, lane.group, "label strong"))
            top, group = top + 24, lane.group
        shapes.append(text(left - 10, top + 17, lane.label, "label", "end"))
        for span in lane.spans:
            x, wide = axis.at(span.start), axis.at(span.end) - axis.at(span.start)
            hint = f"{lane.label} {span.label}: {span.start:.4g} to {span.end:.4g} s"
            shapes.append(rectangle(x, top + 2, max(1.0, wide - 1), _LANE - 8, span.colour, hint))
            if text_width(span.label, SMALL) < wide - 6:
                shapes.append(text(x + wide / 2, top + 17, span.label, f"small on-{span.colour}", "middle"))
        top += _LANE
    shapes.append(line(left, top + 4, WIDTH - 20, top + 4, "rule"))
    for tick in axis.ticks():
        shapes.append(line(axis.at(tick), top + 4, axis.at(tick), top + 9, "rule"))
        shapes.append(text(axis.at(tick), top + 22, f"{tick:.4g}", "small faint", "middle"))
    shapes.append(text(WIDTH - 20, top + 22 + LABEL, "seconds", "small faint", "end"))
    return figure(WIDTH, top + 40, shapes, chart.title)


def chart_table(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the values in a chart, for those who read rather than look."""
    if isinstance(chart, Bars):
        rows = [
            [panel.title, bar.label, number(bar.value), panel.unit, _interval(bar), bar.note]
            for panel in chart.panels
            for bar in panel.bars
        ]
        return ["what", "of", "value", "unit", "interval", "note"], rows
    rows = [
        [lane.group, lane.label, span.label, f"{span.start:.4f}", f"{span.end:.4f}"]
        for lane in chart.lanes
        for span in lane.spans
    ]
    return ["what", "lane", "part", "from, s", "to, s"], rows


def _interval(bar: Bar) -> str:
    return "–" if bar.low is None or bar.high is None else f"{number(bar.low)} – {number(bar.high)}"


def ordered(lanes: Sequence[Lane]) -> tuple[Lane, ...]:
    """Lanes without the empty ones."""
    return tuple(lane for lane in lanes if lane.spans)
