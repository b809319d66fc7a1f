"""Words, terms and numbers to print; each belongs to one split, whatever its case."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.split import Split, belongs
from stages.workshop.corpus.rendering.words import ADJECTIVES, NOUNS, VERBS

WORDS = NOUNS
_DIGITS = 4
_SYLLABLES = (1, 4)
_LETTERS = "bcdfghjklmnprstvwyz"
_HEADS = "bl br ch cl cr dr fl fr gl gr pl pr qu sc sh sk sl sm sn sp st str sw th tr tw wh"
_MIDDLES = "a e i o u a e i o u ai au ea ee ie oa oo ou y"
_TAILS = "ck ft ld ll lt mp nd ng nk nt pt rd rk rm rn rt sh sk ss st th ve"
_ONSETS = ("", *_LETTERS, *_HEADS.split())
_VOWELS = tuple(_MIDDLES.split())
_CODAS = ("", "", "", *_LETTERS.translate(str.maketrans("", "", "cfhjvwy")), *_TAILS.split())


def draw_word(rng: np.random.Generator, split: Split) -> str:
    """A noun that belongs to this split."""
    return draw_from(rng, split, WORDS)


def draw_adjective(rng: np.random.Generator, split: Split) -> str:
    """An adjective that belongs to this split."""
    return draw_from(rng, split, ADJECTIVES)


def draw_verb(rng: np.random.Generator, split: Split) -> str:
    """A verb in the past that belongs to this split."""
    return draw_from(rng, split, VERBS)


def draw_from(rng: np.random.Generator, split: Split, texts: tuple[str, ...]) -> str:
    """One of several texts that belongs to this split; there must be one."""
    while True:
        text = texts[rng.integers(len(texts))]
        if belongs(text, split):
            return text


def draw_invented(rng: np.random.Generator, split: Split) -> str:
    """A word that is none, so that it must be read letter by letter."""
    while True:
        word = "".join(
            part[rng.integers(len(part))]
            for _ in range(rng.integers(*_SYLLABLES))
            for part in (_ONSETS, _VOWELS, _CODAS)
        )
        if len(word) > 1 and belongs(word, split):
            return word


def draw_term(rng: np.random.Generator, split: Split) -> str:
    """A word of any kind, one in two invented, mostly in small letters, sometimes capitalized or in capitals."""
    kinds = (draw_word, draw_adjective, draw_verb, draw_invented, draw_invented, draw_invented)
    word = kinds[rng.integers(len(kinds))](rng, split)
    chance = rng.random()
    return word if chance < 0.5 else word.capitalize() if chance < 0.8 else word.upper()


def draw_number(rng: np.random.Generator, split: Split) -> str:
    """A number of two to four digits that belongs to this split."""
    while True:
        digits = int(rng.integers(2, _DIGITS + 1))
        number = str(rng.integers(10 ** (digits - 1), 10**digits))
        if belongs(number, split):
            return number
