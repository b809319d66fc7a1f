"""Several lines of any text on one page, nothing else: read all of them, one of them, the one above or below another.

A page of one word teaches a model a handful of letters; such a page teaches it dozens, and that text has an order.
"""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.room import LINE, Room
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.sentences import draw_phrase
from stages.workshop.corpus.rendering.strings import draw_code, draw_date, draw_figure, draw_price
from stages.workshop.corpus.rendering.tables import distinct
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_term

ALL_QUESTIONS = ("Read all lines.", "Read the whole text.", "Write down everything that is printed.")
NTH_QUESTIONS = ("Read line {number}.", "What does line {number} say?", "Copy line {number}.")
BELOW_QUESTIONS = ('What stands right below "{text}"?', 'Read the line below "{text}".')
ABOVE_QUESTIONS = ('What stands right above "{text}"?', 'Read the line above "{text}".')
LAYOUTS = ("left", "centred", "right", "boxed", "ruled", "bold")
_MARKUP = {
    "left": "#align(left, {text})",
    "centred": "#align(center, {text})",
    "right": "#align(right, {text})",
    "boxed": "#box(stroke: 0.06em + ink, inset: 0.4em, {text})",
    "ruled": "#block(stroke: (y: 0.06em + ink), inset: (y: 0.35em), {text})",
    "bold": "#strong({text})",
}
_KINDS = (draw_term, draw_term, draw_figure, draw_price, draw_date, draw_code, draw_phrase)
_LEAST, _MOST = 2, 7
# What layouts add to the lines and letters of the text.
_BESIDE = 1.2


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    layout = look.draw_layout(rng, split, "lines", LAYOUTS)
    margin = max(2.0, 0.04 * min(look.size))
    room, least = Room.on(look.size, margin), look.heights[0]
    letters, most = room.letters(least) - 1, min(_MOST, int(room.lines(least)))
    if most < _LEAST:
        raise PageOverflowError
    count = int(rng.integers(_LEAST, most + 1))
    lines = distinct(count, lambda: _line(rng, split, letters))
    fitting = min(room.height_for(max(map(len, lines)) + _BESIDE, count + _BESIDE), look.heights[1])
    if fitting < least:
        raise PageOverflowError
    paper, ink = draw_paper(rng)
    # The gap between lines is part of `LINE`; tighter and wider ones are common in print.
    gap = rng.uniform(0.15, 1.0) * (LINE - 1)
    stack = f"stack(spacing: {gap:.2f}em, " + ", ".join(shown(line).removeprefix("#") for line in lines) + ")"
    return Page(
        _MARKUP[layout].format(text=stack),
        look.size,
        font=look.draw_font(rng, split),
        height=max(least, look.draw_height(rng, fitting)),
        smallest=least,
        exchanges=tuple(_exchanges(rng, lines)),
        texts=tuple(lines),
        absent=(not_there(word_question(rng, NTH_QUESTIONS, number=str(count + int(rng.integers(1, 4))))),),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout},
    )


def _line(rng: np.random.Generator, split: Split, letters: int) -> str:
    """A text of any kind that is no longer than a line."""
    for _ in range(50):
        text = _KINDS[rng.integers(len(_KINDS))](rng, split)
        if len(text) <= letters:
            return text
    raise PageOverflowError


def _exchanges(rng: np.random.Generator, lines: list[str]) -> list[Exchange]:
    nth, above = int(rng.integers(len(lines))), int(rng.integers(len(lines) - 1))
    below = int(rng.integers(1, len(lines)))
    return [
        Exchange("lines-all", word_question(rng, ALL_QUESTIONS), "\n".join(lines)),
        Exchange("lines-nth", word_question(rng, NTH_QUESTIONS, number=str(nth + 1)), lines[nth]),
        Exchange("lines-below", word_question(rng, BELOW_QUESTIONS, text=lines[above]), lines[above + 1]),
        Exchange("lines-above", word_question(rng, ABOVE_QUESTIONS, text=lines[below]), lines[below - 1]),
    ]


LINES = Family(("lines-all", "lines-nth", "lines-below", "lines-above"), _draw, LAYOUTS)
