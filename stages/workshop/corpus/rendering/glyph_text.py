"""What glyph pages say: words, figures, prices, dates, codes, phrases, other languages, and mere characters."""

from __future__ import annotations

import functools

import numpy as np

from stages.workshop.corpus.rendering.languages import LANGUAGES
from stages.workshop.corpus.rendering.scripts import characters_of
from stages.workshop.corpus.rendering.sentences import draw_phrase
from stages.workshop.corpus.rendering.split import Split
from stages.workshop.corpus.rendering.strings import draw_code, draw_date, draw_figure, draw_price
from stages.workshop.corpus.rendering.vocabulary import draw_term

# Shares: of the texts whose script is English anyway; of words among the others; of mere characters among all.
_LATIN = 0.7
_FOREIGN = 0.5
_JUMBLED = 0.08
_ENGLISH = (draw_term, draw_term, draw_term, draw_figure, draw_figure, draw_price, draw_date, draw_code, draw_phrase)
_LONGEST = 12


@functools.cache
def alphabet(scripts: tuple[str, ...]) -> tuple[str, ...]:
    """All characters that pages in these scripts can show, in the order of their code points; a space is none."""
    return tuple(map(chr, sorted(frozenset[int]().union(*map(characters_of, scripts)))))


def draw_text(rng: np.random.Generator, split: Split, scripts: tuple[str, ...]) -> str:
    """A text of one split that a face covering these scripts can print; "latin" is always among them."""
    chance = rng.random()
    script = "latin" if rng.random() < _LATIN else scripts[rng.integers(len(scripts))]
    if chance < _JUMBLED:
        return _jumbled(rng, script)
    if script != "latin" and chance < _JUMBLED + _FOREIGN:
        return _foreign(rng, split, script)
    return _ENGLISH[rng.integers(len(_ENGLISH))](rng, split)


def _jumbled(rng: np.random.Generator, script: str) -> str:
    """Characters in no order, so that rare ones are seen too and nothing can be guessed from a neighbour."""
    known = alphabet((script,))
    return "".join(known[place] for place in rng.integers(len(known), size=int(rng.integers(1, _LONGEST))))


def _foreign(rng: np.random.Generator, split: Split, script: str) -> str:
    words = _words(script, split)
    word = words[rng.integers(len(words))]
    return word.upper() if rng.random() < 0.2 else word.capitalize() if rng.random() < 0.3 else word


@functools.cache
def _words(script: str, split: Split) -> tuple[str, ...]:
    """All words of the languages of a script that belong to a split."""
    return tuple(word for known in LANGUAGES.values() if known.script == script for word in known.words_of(split))
