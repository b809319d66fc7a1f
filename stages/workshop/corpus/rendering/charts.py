"""Charts of named values: the value of one, which is largest or smallest, how much two differ, the title.

Values are printed, or lie on the ticks of the axis, so that each can be told exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.chart_layouts import (
    LAYOUTS,
    Chart,
    draw_style,
    label_letters,
    legend_size,
    markup,
    tick_letters,
)
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.names import (
    draw_distinct,
    draw_first_name,
    draw_goods,
    draw_town,
)
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper
from stages.workshop.corpus.rendering.room import LETTER, Room
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.split import belongs

VALUE_QUESTIONS = (
    "What is the value of {name}?",
    "Which value does {name} have?",
    "How large is {name} in the chart?",
    "Read the value of {name} from the chart.",
)
LARGEST_QUESTIONS = (
    "Which one has the largest value?",
    "What has the highest value in the chart?",
    "Which is the largest in the chart?",
)
SMALLEST_QUESTIONS = (
    "Which one has the smallest value?",
    "What has the lowest value in the chart?",
    "Which is the smallest in the chart?",
)
DIFFERENCE_QUESTIONS = (
    "What is the difference between {one} and {other}?",
    "By how much do {one} and {other} differ?",
    "How much larger is {one} than {other}?",
)
TITLE_QUESTIONS = ("What is the title of the chart?", "What does the heading of the chart say?")
_SUBJECTS = ("sales", "visits", "orders", "stock", "results", "exports", "votes", "scores", "demand", "output")
_STEPS = (1, 2, 5, 10, 20, 25, 50, 100)
_MOST_CATEGORIES, _MOST_SLICES, _MOST_TICKS = 9, 6, 8
# A slice is at least this share of the pie, so that its number fits.
_LEAST_SLICE = 0.12
_TRIES = 200
# Em that a title takes; the least height of a plot, and the least radii of pies: numbers must not touch inside one.
_TITLE, _LEAST_PLOT = 1.6, 6.5
_LEAST_RADII = {"pie": 4.2, "pie-labels": 2.6, "ring": 2.6}
_PIES = tuple(_LEAST_RADII)
_FEWEST_TICKS = 4

Name = Callable[[np.random.Generator, Split], str]


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    layout = look.draw_layout(rng, split, "chart", LAYOUTS)
    margin = max(4.0, 0.035 * min(look.size))
    room, least = Room.on(look.size, margin), look.heights[0]
    chart = _draw_chart(rng, split, layout, room, least)
    fitting = min(_fitting(chart, layout, room), look.heights[1])
    if fitting < least:
        raise PageOverflowError
    height = max(least, fitting * rng.uniform(0.65, 1.0))
    paper, ink = draw_paper(rng)
    dark = int(paper[1:3], 16) < 128
    several = layout in _PIES or rng.random() < 0.4
    style = draw_style(rng, len(chart.names), dark, one=not several)
    return Page(
        body=markup(chart, style, layout, room.width / height - 0.02, room.height / height - 0.02),
        size=look.size,
        font=look.draw_font(rng, split),
        height=height,
        smallest=least,
        exchanges=_exchanges(rng, chart),
        texts=(*([chart.title] if chart.title else []), *chart.names, *_printed(chart)),
        absent=(_absent(rng, split, chart),),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"chart": chart, "layout": layout},
    )


def _draw_chart(rng: np.random.Generator, split: Split, layout: str, room: Room, least: float) -> Chart:
    """A chart whose names fit the page's width at the least height of text."""
    width, height = room.width / least, room.height / least
    name: Name = (draw_town, draw_first_name, lambda rng, split: draw_goods(rng, split, 8))[rng.integers(3)]
    letters = int(rng.integers(5, 10))
    across = int((width / LETTER - 5) / (letters + 1.2))
    most = {"bars": int((height - _TITLE) / 1.6) - 1, "columns": across, "line": across, "stems": across}
    count = min(most.get(layout, _MOST_SLICES), _MOST_CATEGORIES)
    if count < 2:
        raise PageOverflowError
    count = int(rng.integers(2, count + 1, 2).max())
    names = draw_distinct(count, lambda: _short(rng, split, name, letters))
    title = f"{draw_goods(rng, split, 6)} {_SUBJECTS[rng.integers(len(_SUBJECTS))]}"
    if height < _TITLE + _LEAST_PLOT + 2 or len(title) * LETTER * 1.1 > width:
        title = ""
    printed = layout in _PIES or bool(rng.random() < 0.5)
    if layout in _PIES:
        return Chart(title, tuple(names), _draw_slices(rng, split, count), 0, 0, True)
    return _draw_axis(rng, split, title, tuple(names), printed, int(min(_MOST_TICKS, (height - 5) / 1.3)))


def _short(rng: np.random.Generator, split: Split, name: Name, letters: int) -> str:
    for _ in range(_TRIES):
        text = name(rng, split)
        if len(text) <= letters:
            return text
    raise PageOverflowError


def _draw_axis(
    rng: np.random.Generator, split: Split, title: str, names: tuple[str, ...], printed: bool, most: int
) -> Chart:
    """A chart with an axis of at most that many ticks, or with printed values and none."""
    count, step = len(names), _STEPS[rng.integers(len(_STEPS))]
    least = max(count, _FEWEST_TICKS)
    if most < least or (printed and rng.random() < 0.4):
        low = int(rng.choice([3, 20, 100]))
        return Chart(title, names, _draw_values(rng, split, count, low, 9 * low), 0, 0, True)
    ticks = int(rng.integers(least, most + 1))
    if printed and step * ticks >= 2 * _FEWEST_TICKS * count:
        values = _draw_values(rng, split, count, max(2, step * ticks // 12), step * ticks)
    else:
        values = tuple(step * int(place) for place in rng.permutation(np.arange(1, ticks + 1))[:count])
        printed = False
    return Chart(title, names, values, step, ticks, printed)


def _draw_slices(rng: np.random.Generator, split: Split, count: int) -> tuple[int, ...]:
    low = int(rng.choice([4, 10, 40, 100]))
    for _ in range(_TRIES):
        values = _draw_values(rng, split, count, low, 3 * low + 2 * count)
        if min(values) >= _LEAST_SLICE * sum(values):
            return values
    raise PageOverflowError


def _draw_values(rng: np.random.Generator, split: Split, count: int, low: int, high: int) -> tuple[int, ...]:
    """Different numbers from low to high that belong to the split.

    Raises:
        PageOverflowError: there are not so many.
    """
    own = [value for value in range(low, high + 1) if belongs(str(value), split)]
    if len(own) < count:
        raise PageOverflowError
    return tuple(int(value) for value in rng.permutation(own)[:count])


def _fitting(chart: Chart, layout: str, room: Room) -> float:
    """The greatest height of text with which a chart can be drawn."""
    return max(min(room.width / width, room.height / height) for width, height in _needed(chart, layout))


def _needed(chart: Chart, layout: str) -> list[tuple[float, float]]:
    """Widths and heights in em of which one is enough."""
    title = _TITLE if chart.title else 0.0
    heading = len(chart.title) * LETTER * 1.1
    number, name = tick_letters(chart) * LETTER, max(map(len, chart.names)) * LETTER
    if layout in _PIES:
        legend, across = legend_size(chart, layout), 2 * _LEAST_RADII[layout]
        if layout == "pie-labels":
            return [(max(heading, across + 2 * (label_letters(chart) * LETTER + 0.7)), title + across + 5)]
        beside = (max(heading, legend[0] + 0.5 + across), title + max(across, legend[1]))
        return [beside, (max(heading, legend[0], across), title + across + 0.5 + legend[1])]
    if layout == "bars":
        plot = max(5.0, chart.ticks * (number + LETTER))
        return [(max(heading, name + plot + number + 2), title + 1.6 * len(chart.names) + 1.8)]
    plot = max(_LEAST_PLOT, 1.3 * chart.ticks)
    return [(max(heading, number + 1 + len(chart.names) * (name + LETTER)), title + plot + 3)]


def _exchanges(rng: np.random.Generator, chart: Chart) -> tuple[Exchange, ...]:
    values = dict(zip(chart.names, chart.values, strict=True))
    name = chart.names[rng.integers(len(chart.names))]
    pair = [chart.names[place] for place in rng.permutation(len(chart.names))[:2]]
    one, other = sorted(pair, key=lambda name: -values[name])
    found = [
        Exchange("chart-value", word_question(rng, VALUE_QUESTIONS, name=name), str(values[name])),
        Exchange("chart-largest", word_question(rng, LARGEST_QUESTIONS), max(values, key=lambda name: values[name])),
        Exchange("chart-smallest", word_question(rng, SMALLEST_QUESTIONS), min(values, key=lambda name: values[name])),
        Exchange(
            "chart-difference",
            word_question(rng, DIFFERENCE_QUESTIONS, one=one, other=other),
            str(values[one] - values[other]),
        ),
    ]
    if chart.title:
        found.append(Exchange("chart-title", word_question(rng, TITLE_QUESTIONS), chart.title))
    return tuple(found)


def _absent(rng: np.random.Generator, split: Split, chart: Chart) -> Exchange:
    draw = (draw_town, draw_first_name)[rng.integers(2)]
    other = draw_distinct(1, lambda: draw(rng, split), (*chart.names, chart.title or "-"))[0]
    return not_there(word_question(rng, VALUE_QUESTIONS, name=other))


def _printed(chart: Chart) -> tuple[str, ...]:
    """Values that are written; numbers of ticks are round and the same everywhere."""
    return tuple(map(str, chart.values)) if chart.printed else ()


CHARTS = Family(("chart-value", "chart-largest", "chart-smallest", "chart-difference", "chart-title"), _draw, LAYOUTS)
