"""One printed text: a word, a number, a short line, a price, a date, something like a code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.family import Draw, Family
from stages.workshop.corpus.rendering.page import Page, draw_paper
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, word_question
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_number, draw_word

WORD_QUESTIONS = ("Which word is printed here?", "Read the word.", "What does it say?")
NUMBER_QUESTIONS = ("Which number is printed here?", "Read the number.")
LAYOUTS = ("plain", "boxed", "underlined", "badge")
_PLACES = ("top", "horizon", "bottom")
_SIDES = ("left", "center", "right")
# Width of a letter over its height, generously.
_LETTER = 0.62
_MARKUP = {
    "plain": "{text}",
    "boxed": "#box(stroke: 0.06em, inset: 0.35em)[{text}]",
    "underlined": "#underline(offset: 0.2em)[{text}]",
    "badge": "#box(fill: rgb({ink}), radius: 0.3em, inset: 0.35em)[#set text(fill: rgb({paper}));{text}]",
}


def _family(task: str, questions: tuple[str, ...], draw_text: Callable[[np.random.Generator, Split], str]) -> Family:
    def draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
        text = draw_text(rng, split)
        layout = look.draw_layout(rng, split, task, LAYOUTS)
        exchange = Exchange(task, word_question(rng, questions), text)
        paper, ink = draw_paper(rng)
        margin = 0.05 * min(look.size)
        room = 1.0 if layout in ("plain", "underlined") else 1.7
        widest = (look.size.width - 2 * margin) / (len(text) * _LETTER + room)
        place, side = _PLACES[rng.integers(len(_PLACES))], _SIDES[rng.integers(len(_SIDES))]
        markup = _MARKUP[layout].format(text=shown(text), paper=f'"{paper}"', ink=f'"{ink}"')
        return Page(
            f"#align({side} + {place})[{markup}]",
            look.size,
            font=look.draw_font(rng, split),
            height=look.draw_height(rng, min(widest, 0.5 * min(look.size))),
            smallest=look.heights[0],
            exchanges=(exchange,),
            texts=(text,),
            margin=margin,
            paper=paper,
            ink=ink,
            facts={"layout": layout},
        )

    drawing: Draw = draw
    return Family((task,), drawing, LAYOUTS)


PRINTED_WORD = _family("word", WORD_QUESTIONS, draw_word)
PRINTED_NUMBER = _family("number", NUMBER_QUESTIONS, draw_number)
