"""Phrases and sentences of common words; their nouns, adjectives and verbs belong to one split."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.split import Split
from stages.workshop.corpus.rendering.vocabulary import draw_adjective, draw_invented, draw_number, draw_verb, draw_word

_PHRASES = (
    "{noun} and {noun}",
    "the {adjective} {noun}",
    "{adjective} {noun}",
    "a {noun} for the {noun}",
    "{noun} of the {noun}",
    "no {noun} today",
    "{adjective} {noun} {noun}",
    "please close the {noun}",
    "mind the {adjective} {noun}",
    "{noun} {noun} {noun}",
    "more {noun}, less {noun}",
    "{number} {adjective} {noun}",
    "{noun} at {invented}",
    "welcome to {invented}",
)
_SENTENCES = (
    "The {adjective} {noun} {verb} the {noun}.",
    "We {verb} a {noun} near the {adjective} {noun}.",
    "She {verb} the {noun} and the {noun}.",
    "He {verb} {number} of the {adjective} {noun} at {invented}.",
    "Every {noun} is {adjective} in the {noun}.",
    "Is the {noun} more {adjective} than the {noun}?",
    "They {verb} the {noun} because it was {adjective}.",
    "Nobody {verb} the {adjective} {noun} of {invented}.",
    "In the {noun} they {verb} a {noun} with a {noun}.",
    "After {number} days the {noun} was {adjective}.",
    "Who {verb} the {noun} that {invented} {verb}?",
    "A {adjective} and {adjective} {noun} stood behind the {noun}.",
    "From {invented} to {invented} we {verb} only {noun}.",
    "It {verb} the {noun}, then it {verb} the {noun}.",
)
_TITLES = (
    "The {adjective} {noun}",
    "{noun} and {noun}",
    "A {noun} in {invented}",
    "{adjective} {noun}",
    "News of {noun}",
    "How we {verb} the {noun}",
    "{invented} and the {noun}",
    "About the {noun}",
)


def draw_phrase(rng: np.random.Generator, split: Split) -> str:
    """Two to five words, in small letters, with a capital or all in capitals."""
    text = _fill(rng, split, _PHRASES)
    chance = rng.random()
    return text if chance < 0.4 else text[0].upper() + text[1:] if chance < 0.85 else text.upper()


def draw_sentence(rng: np.random.Generator, split: Split) -> str:
    """A sentence with its full stop or question mark."""
    text = _fill(rng, split, _SENTENCES)
    return text[0].upper() + text[1:]


def draw_title(rng: np.random.Generator, split: Split) -> str:
    """A heading of a few words."""
    text = _fill(rng, split, _TITLES)
    return text[0].upper() + text[1:]


def _fill(rng: np.random.Generator, split: Split, patterns: tuple[str, ...]) -> str:
    """One of the patterns, each `{kind}` replaced by a word of its own."""
    draws = {"noun": draw_word, "adjective": draw_adjective, "verb": draw_verb, "number": draw_number}
    filled = []
    for piece in patterns[rng.integers(len(patterns))].split(" "):
        head, brace, rest = piece.partition("{")
        if not brace:
            filled.append(piece)
            continue
        kind, _, tail = rest.partition("}")
        word = draw_invented(rng, split).capitalize() if kind == "invented" else draws[kind](rng, split)
        filled.append(head + word + tail)
    return " ".join(filled)
