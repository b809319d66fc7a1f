"""Words, strings and sentences that are drawn belong to their split, and look like what they are called."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable

import numpy as np
import pytest

from stages.workshop.corpus.rendering.languages import LANGUAGES
from stages.workshop.corpus.rendering.scripts import SCRIPTS, characters_of
from stages.workshop.corpus.rendering.sentences import draw_phrase, draw_sentence, draw_title
from stages.workshop.corpus.rendering.split import SPLITS, Split, belongs, is_held_out
from stages.workshop.corpus.rendering.strings import draw_code, draw_date, draw_figure, draw_price
from stages.workshop.corpus.rendering.vocabulary import (
    WORDS,
    draw_adjective,
    draw_invented,
    draw_number,
    draw_term,
    draw_verb,
    draw_word,
)
from stages.workshop.corpus.rendering.words import ADJECTIVES, VERBS

Draw = Callable[[np.random.Generator, Split], str]
WORD_DRAWS: tuple[Draw, ...] = (draw_word, draw_adjective, draw_verb, draw_invented)
FORMS: dict[Draw, str] = {
    draw_figure: r"-?\d[\d,]*(\.\d+)?%?|\d\d:\d\d",
    draw_price: r"([$£€]|(USD|EUR|CHF|GBP) )?\d[\d,]*(\.\d\d)?( €)?",
    draw_date: r"[\d./-]{5,10}|(\w+, )?\d+ \w+( \d{4})?|\w+ (\d+, )?\d{4}|\d\d-[A-Z]{3}-\d{4}",
    draw_code: r"[\w.@/+ -]{5,40}",
}


def test_every_word_belongs_to_one_split() -> None:
    for words in (WORDS, ADJECTIVES, VERBS):
        assert len(set(words)) == len(words) >= 70
        assert 0.1 < sum(map(is_held_out, words)) / len(words) < 0.3
    rng = np.random.default_rng(0)
    assert {draw_word(rng, "heldout") for _ in range(600)} == {word for word in WORDS if is_held_out(word)}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("draw", (*WORD_DRAWS, draw_number, *FORMS), ids=lambda draw: draw.__name__)
def test_what_is_drawn_belongs_to_its_split(draw: Draw, split: Split) -> None:
    rng = np.random.default_rng(1)
    texts = {draw(rng, split) for _ in range(150)}
    assert len(texts) > 10 and all(belongs(text, split) for text in texts)


@pytest.mark.parametrize("draw", FORMS, ids=lambda draw: draw.__name__)
def test_strings_look_like_what_they_are(draw: Draw) -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        text = draw(rng, "train")
        assert re.fullmatch(FORMS[draw], text), text


def test_dates_are_days_of_the_calendar() -> None:
    rng = np.random.default_rng(3)
    forms = ("%Y-%m-%d", "%d/%m/%Y", "%d.%m.%Y", "%d.%m.%y", "%d %B %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y", "%B %Y")
    read = 0
    for _ in range(200):
        text = draw_date(rng, "train")
        for form in forms:
            try:
                datetime.datetime.strptime(text, form)
            except ValueError:
                continue
            read += 1
            break
        else:
            assert re.fullmatch(r"\w+day, \d+ \w+", text)
    assert read > 150


@pytest.mark.parametrize("split", SPLITS)
def test_terms_have_any_case(split: Split) -> None:
    rng = np.random.default_rng(4)
    texts = [draw_term(rng, split) for _ in range(300)]
    assert all(belongs(text.lower(), split) for text in texts)
    cases = [sum(rule(text) for text in texts) for rule in (str.islower, str.istitle, str.isupper)]
    assert min(cases) > 30 and sum(cases) >= 300


@pytest.mark.parametrize("draw", [draw_phrase, draw_sentence, draw_title])
def test_sentences_are_made_of_the_split_s_words(draw: Draw) -> None:
    """All words of our lists in a held-out sentence are held out; what is left are the few words that join them."""
    rng = np.random.default_rng(5)
    common = {*WORDS, *ADJECTIVES, *VERBS}
    joining: set[str] = set()
    for _ in range(200):
        text = draw(rng, "heldout")
        words = re.findall(r"[a-z]+", text.lower())
        joining |= {word for word in words if word in common and not is_held_out(word)}
        assert "{" not in text and "  " not in text
    # "to", "was" and the like are no nouns of ours; a handful of pattern words are.
    assert len(joining) <= 3


def test_languages_have_words_for_both_splits() -> None:
    assert len(LANGUAGES) >= 25
    for language in LANGUAGES.values():
        assert len(language.words) >= 50 and len(language.sentences) == 12
        train, held = (language.words_of(split) for split in SPLITS)
        assert len(held) >= 5 and set(train) | set(held) == set(language.words) and not set(train) & set(held)
        assert {*language.sentences_of("train"), *language.sentences_of("heldout")} == set(language.sentences)
        assert not set(language.sentences_of("train")) & set(language.sentences_of("heldout"))
        assert language.script in SCRIPTS
        letters = {ord(letter) for text in (*language.words, *language.sentences) for letter in text if letter != " "}
        assert letters <= characters_of(language.script)


def test_no_sentence_belongs_to_two_languages() -> None:
    """Else nobody could tell which language it is."""
    sentences = [sentence for language in LANGUAGES.values() for sentence in language.sentences]
    assert len(set(sentences)) == len(sentences)
