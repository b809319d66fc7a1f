"""One printed text: a word, a number, a short line, a price, a date, something like a code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.sentences import draw_phrase
from stages.workshop.corpus.rendering.strings import draw_code, draw_date, draw_figure, draw_price
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_term

QUESTIONS = {
    "word": ("Which word is printed here?", "Read the word.", "What does it say?", "What is the word in the picture?"),
    "number": ("Which number is printed here?", "Read the number.", "What number do you see?", "What is the number?"),
    "line": ("Read the text.", "What is written here?", "What does the text say?", "Which words are printed here?"),
    "price": ("Which price is printed here?", "Read the price.", "What amount do you see?", "How much does it cost?"),
    "date": ("Which date is printed here?", "Read the date.", "What date do you see?", "What is the date?"),
    "code": ("Which code is printed here?", "Read the code.", "What is the code?", "Write down the code you see."),
}
LAYOUTS = ("plain", "boxed", "underlined", "badge", "tag", "spaced", "bold", "sidebar", "posts", "ruled")
# Width of a letter over its height, generously.
_LETTER = 0.62
# Width of what a layout adds beside the text, in heights.
_BESIDE = {"boxed": 0.8, "badge": 0.8, "tag": 0.6, "sidebar": 0.7, "posts": 0.9}
_MARKUP = {
    "plain": "{text}",
    "boxed": "#box(stroke: 0.06em + ink, inset: 0.35em)[{text}]",
    "underlined": "#underline(offset: 0.2em)[{text}]",
    "badge": "#box(fill: ink, radius: 0.3em, inset: 0.35em)[#set text(fill: paper);{text}]",
    "tag": "#box(stroke: (left: 0.2em + ink), inset: (left: 0.4em, y: 0.15em))[{text}]",
    "spaced": "#text(tracking: 0.12em)[{text}]",
    "bold": "#strong[{text}]",
    # Bars that are no letters: what stands beside a text must be told from what belongs to it.
    "sidebar": "#box(stroke: (right: 0.15em + ink), inset: (right: 0.45em, y: 0.2em))[{text}]",
    "posts": "#box(stroke: (x: 0.07em + ink), inset: (x: 0.35em, y: 0.1em))[{text}]",
    "ruled": "#box(stroke: (y: 0.07em + ink), inset: (y: 0.3em))[{text}]",
}


def _draw(
    task: str,
    draw_text: Callable[[np.random.Generator, Split], str],
    rng: np.random.Generator,
    split: Split,
    look: Look,
) -> Page:
    text = draw_text(rng, split)
    layout = look.draw_layout(rng, split, task, LAYOUTS)
    paper, ink = draw_paper(rng)
    margin = 0.05 * min(look.size)
    markup = _MARKUP[layout].format(text=shown(text))
    return Page(
        markup,
        look.size,
        font=look.draw_font(rng, split),
        height=look.draw_height(rng, _highest(text, layout, look, margin)),
        smallest=look.heights[0],
        exchanges=(Exchange(task, word_question(rng, QUESTIONS[task]), text),),
        texts=(text,),
        absent=_absent(rng, task),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout},
    )


def _highest(text: str, layout: str, look: Look, margin: float) -> float:
    """The greatest height at which a text fits: a line breaks between words, anything else stands on one line."""
    letter = _LETTER + (0.12 if layout == "spaced" else 0.0)
    width, height = look.size.width - 2 * margin, look.size.height - 2 * margin
    longest = max(map(len, text.split(" "))) if " " in text else len(text)
    one_line = width / (longest * letter + _BESIDE.get(layout, 0.0) + 0.2)
    area = (width * height / (1.8 * letter * len(text))) ** 0.5
    return min(one_line, area, 0.5 * height)


def _absent(rng: np.random.Generator, task: str) -> tuple[Exchange, ...]:
    """Asks for another kind of text; not for words, because what a line says may be read as words, nor of a line."""
    others = {"word": ("number", "price", "date"), "number": ("word", "date"), "price": ("word", "date")}
    others |= {"date": ("price",)}
    return tuple(not_there(word_question(rng, QUESTIONS[other][:2])) for other in others.get(task, ()))


_TEXTS = {
    "word": draw_term,
    "number": draw_figure,
    "line": draw_phrase,
    "price": draw_price,
    "date": draw_date,
    "code": draw_code,
}
PRINTED: Mapping[str, Family] = MappingProxyType(
    {task: Family((task,), partial(_draw, task, text), LAYOUTS) for task, text in _TEXTS.items()}
)
