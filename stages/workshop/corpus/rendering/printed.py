"""One printed word or number."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.scene import Exchange, Family, Look, Scene, Split, word_question
from stages.workshop.corpus.rendering.typeset import FONTS, quoted, typeset
from stages.workshop.corpus.rendering.vocabulary import draw_number, draw_word

WORD_QUESTIONS = ("Which word is printed here?", "Read the word.", "What does it say?")
NUMBER_QUESTIONS = ("Which number is printed here?", "Read the number.")
_PLACES = ("top", "horizon", "bottom")
_SIDES = ("left", "center", "right")
# Width of a letter over its height, generously.
_LETTER = 0.62


def draw_paper(rng: np.random.Generator) -> tuple[str, str]:
    """A light paper and a dark ink, "#rrggbb" each."""
    paper, ink = rng.integers(205, 256, 3), rng.integers(0, 100, 3)
    return _hexadecimal(paper), _hexadecimal(ink)


def _hexadecimal(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{int(level):02x}" for level in rgb)


def _draw_text(rng: np.random.Generator, look: Look, text: str, task: str, question: str) -> Scene:
    side = min(look.size)
    margin = 0.05 * side
    largest = min((look.size.width - 2 * margin) / (len(text) * _LETTER), 0.5 * side)
    paper, ink = draw_paper(rng)
    place, beside = _PLACES[rng.integers(len(_PLACES))], _SIDES[rng.integers(len(_SIDES))]
    picture = typeset(
        f"#align({beside} + {place}, text({quoted(text)}))",
        look.size,
        margin=margin,
        paper=paper,
        ink=ink,
        font=FONTS[rng.integers(len(FONTS))],
        height=largest * rng.uniform(0.7, 1.0),
    )
    return Scene(picture, (Exchange(task, question, text),), texts=(text,))


def _word(rng: np.random.Generator, split: Split, look: Look) -> Scene:
    return _draw_text(rng, look, draw_word(rng, split), "word", word_question(rng, WORD_QUESTIONS))


def _number(rng: np.random.Generator, split: Split, look: Look) -> Scene:
    return _draw_text(rng, look, draw_number(rng, split), "number", word_question(rng, NUMBER_QUESTIONS))


PRINTED_WORD = Family(("word",), _word)
PRINTED_NUMBER = Family(("number",), _number)
