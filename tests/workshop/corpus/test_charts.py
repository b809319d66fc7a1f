"""Charts: what is drawn is as long as its value, ticks stand where their numbers say, and answers follow from both."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.chart_layouts import LAYOUTS, Chart, Style, markup
from stages.workshop.corpus.rendering.fonts import TYPST_FONTS
from stages.workshop.corpus.rendering.page import Page, compose
from stages.workshop.corpus.rendering.scene import Look

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
COLOURS = ("#d02020", "#20a020", "#2040d0", "#c0a000")
CHART = Chart("Tea sales", ("Oslo", "Riga", "Pisa", "Lyon"), (40, 10, 30, 20), 10, 4, False)


def drawn(layout: str, chart: Chart = CHART) -> np.ndarray:
    size = Size(300, 300)
    body = markup(chart, Style(COLOURS), layout, size.width / 12 - 1, size.height / 12 - 1)
    page = Page(body, size, "DejaVu Sans Mono", 12, 12, (), margin=6)
    return np.asarray(compose(page, TYPST_FONTS).picture, int)


def painted(levels: np.ndarray, colour: str) -> np.ndarray:
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return np.abs(levels - rgb).sum(axis=2) < 30


@pytest.mark.parametrize(("layout", "axis"), [("columns", 0), ("bars", 1)])
def test_bars_are_as_long_as_their_values(layout: str, axis: int) -> None:
    levels = drawn(layout)
    lengths = [np.ptp(np.nonzero(painted(levels, colour))[axis]) + 1 for colour in COLOURS]
    assert np.allclose(np.array(lengths) / lengths[0], np.array(CHART.values) / CHART.values[0], atol=0.02)


@pytest.mark.parametrize("layout", ["pie", "pie-labels", "ring"])
def test_slices_are_as_large_as_their_values(layout: str) -> None:
    levels = drawn(layout, Chart("", CHART.names, CHART.values, 0, 0, True))
    areas = np.array([painted(levels, colour).sum() for colour in COLOURS], float)
    # Legends and plates take or give a little.
    assert np.allclose(areas / areas.sum(), np.array(CHART.values) / 100, atol=0.04)


@pytest.mark.parametrize("layout", ["line", "stems"])
def test_dots_stand_as_high_as_their_values(layout: str) -> None:
    style_colours = COLOURS if layout == "stems" else COLOURS[:1] * 4
    levels = drawn(layout)
    tops = []
    for index, colour in enumerate(style_colours):
        rows, columns = np.nonzero(painted(levels, colour))
        if layout == "line":
            near = np.abs(columns - _centres(levels)[index]) < 2
            rows = rows[near]
        tops.append(rows.min())
    heights = np.array(tops) - min(tops)
    expected = (np.array(CHART.values).max() - np.array(CHART.values)) / 30
    assert np.allclose(heights / heights.max(), expected, atol=0.03)


def _centres(levels: np.ndarray) -> list[float]:
    """Columns at which the four dots of a line stand, evenly from the first to the last."""
    columns = np.nonzero(painted(levels, COLOURS[0]))[1]
    return list(np.linspace(columns.min() + 2.5, columns.max() - 2.5, 4))


def test_values_lie_on_ticks_that_say_them(look: Make, some_pages: Some) -> None:
    """In the markup, the top of a column is the height of the gridline whose number is its value."""
    checked = 0
    for page in some_pages("chart", "train", look(size=Size(384, 384)), 150):
        chart = page.facts["chart"]
        assert isinstance(chart, Chart)
        if page.facts["layout"] != "columns" or not chart.ticks or chart.printed:
            continue
        lines = [float(y) for y in re.findall(r"start: \([\d.-]+em, ([\d.-]+)em\), end: \(", page.body)]
        tops = [float(y) for y in re.findall(r"dy: ([\d.-]+)em, rect\(", page.body)]
        for value, top in zip(chart.values, tops, strict=True):
            assert value % chart.step == 0 and abs(lines[value // chart.step] - top) < 2e-3
        checked += 1
    assert checked > 4


def test_answers_follow_from_the_values(look: Make, some_pages: Some) -> None:
    for page in some_pages("chart", "train", look(size=Size(384, 384)), 80):
        chart = page.facts["chart"]
        assert isinstance(chart, Chart)
        values = dict(zip(chart.names, chart.values, strict=True))
        assert len(set(chart.values)) == len(chart.values)
        answers = {exchange.task: exchange for exchange in page.exchanges}
        ordered = sorted(values, key=values.__getitem__)
        assert (answers["chart-smallest"].answer, answers["chart-largest"].answer) == (ordered[0], ordered[-1])
        named = [name for name in values if name in answers["chart-value"].question]
        assert [str(values[name]) for name in named] == [answers["chart-value"].answer]
        one, other = (values[name] for name in values if name in answers["chart-difference"].question)
        assert answers["chart-difference"].answer == str(abs(one - other))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_text_stands_over_another(look: Make, some_pages: Some, layout: str) -> None:
    """Boxes around labels, generous as they are, do not meet."""
    others = frozenset(f"chart/{name}" for name in LAYOUTS if name != layout)
    for page in some_pages("chart", "train", look(size=Size(300, 300), heldout_layouts=others), 25):
        boxes = [
            (float(x) + pad, float(y), float(x) + float(wide) - pad, float(y) + float(high))
            for x, y, wide, high, side in re.findall(
                r"dx: ([\d.-]+)em, dy: ([\d.-]+)em, box\(width: ([\d.]+)em, height: ([\d.]+)em, align\((\w+)", page.body
            )
            for pad in (0.5 if side == "center" else 0.0,)
        ]
        assert len(boxes) >= 2
        for one, other in itertools.combinations(boxes, 2):
            apart = one[2] <= other[0] + 1.01 or other[2] <= one[0] + 1.01
            assert apart or one[3] <= other[1] + 0.15 or other[3] <= one[1] + 0.15
