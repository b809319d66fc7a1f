"""Words and sentences in every language that the fonts can print: reading them, and telling the language."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.languages import LANGUAGES, Language
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.tables import distinct
from stages.workshop.corpus.rendering.typeset import shown

TEXT_QUESTIONS = ("Read the text as it is written.", "Write down what is printed.", "Copy the text.")
LINE_QUESTIONS = ("Read the {which} line.", "What does the {which} line say?", "Copy the {which} line.")
LANGUAGE_QUESTIONS = ("Which language is this?", "In which language is the text?", "Name the language of the text.")
LAYOUTS = ("plain", "boxed", "badge", "tag", "lines")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_MOST_LINES = 4
# Width of a letter and height of a line over the text's height; these scripts are wider and higher than the others.
_LETTER, _LINE = 0.62, 1.6
_LETTERS = {"han": 1.0, "kana": 1.0, "hangul": 1.0}
# Scripts with capitals; Turkish has others than Python gives it.
_CAPITALS = ("latin-extended", "vietnamese", "cyrillic", "greek")
_MARKUP = {
    "plain": "{text}",
    "boxed": "#box(stroke: 0.06em + ink, inset: 0.5em)[{text}]",
    "badge": "#box(fill: ink, radius: 0.3em, inset: 0.5em)[#set text(fill: paper);{text}]",
    "tag": "#box(stroke: (x: 0.2em + ink), inset: (x: 0.5em, y: 0.2em))[{text}]",
}


def _draw_text(rng: np.random.Generator, split: Split, look: Look) -> Page:
    language = _draw_language(rng, look)
    layout = look.draw_layout(rng, split, "foreign", LAYOUTS)
    if layout == "lines":
        return _lines(rng, split, look, language)
    text = _sentence(rng, split, language) if rng.random() < 0.35 else _words(rng, split, language, 4)
    exchange = Exchange("foreign-text", word_question(rng, TEXT_QUESTIONS), text)
    return _page(rng, split, look, language, layout, (text,), exchange)


def _draw_language_page(rng: np.random.Generator, split: Split, look: Look) -> Page:
    language = _draw_language(rng, look)
    layout = look.draw_layout(rng, split, "language", LAYOUTS[:-1])
    exchange = Exchange("language", word_question(rng, LANGUAGE_QUESTIONS), language.name)
    return _page(rng, split, look, language, layout, (_sentence(rng, split, language),), exchange)


def _draw_language(rng: np.random.Generator, look: Look) -> Language:
    """A language whose script some font covers."""
    scripts = look.fonts.scripts()
    names = [name for name, language in LANGUAGES.items() if language.script in scripts]
    return LANGUAGES[names[rng.integers(len(names))]]


def _lines(rng: np.random.Generator, split: Split, look: Look, language: Language) -> Page:
    count = int(rng.integers(2, _MOST_LINES + 1))
    lines = distinct(count, lambda: _words(rng, split, language, 3))
    asked = int(rng.integers(count))
    exchange = Exchange("foreign-text", word_question(rng, LINE_QUESTIONS, which=_ORDINALS[asked]), lines[asked])
    absent = not_there(word_question(rng, LINE_QUESTIONS, which=_ORDINALS[count + int(rng.integers(2))]))
    return _page(rng, split, look, language, "lines", tuple(lines), exchange, absent)


def _page(
    rng: np.random.Generator,
    split: Split,
    look: Look,
    language: Language,
    layout: str,
    texts: tuple[str, ...],
    exchange: Exchange,
    *absent: Exchange,
) -> Page:
    margin = 0.05 * min(look.size)
    width, height = look.size.width - 2 * margin, look.size.height - 2 * margin
    letter = _LETTERS.get(language.script, _LETTER)
    longest = max(map(len, texts))
    if layout == "lines":
        highest = min(width / (longest * letter), height / (_LINE * len(texts)))
        markup = "#stack(spacing: 0.6em, " + ", ".join(shown(text).removeprefix("#") for text in texts) + ")"
    else:
        highest = min((width * height / (_LINE * letter * longest)) ** 0.5, width / (letter * min(longest, 8)))
        markup = _MARKUP[layout].format(text=f"#flow({width - 1.2 * highest:.1f}pt)[{shown(texts[0])}]")
    if highest < look.heights[0]:
        raise PageOverflowError
    paper, ink = draw_paper(rng)
    return Page(
        markup,
        look.size,
        font=look.draw_font(rng, split, language.script),
        height=look.draw_height(rng, highest),
        smallest=look.heights[0],
        exchanges=(exchange,),
        texts=texts,
        absent=absent,
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        script=language.script,
        facts={"layout": layout, "language": language.name},
    )


def _words(rng: np.random.Generator, split: Split, language: Language, most: int) -> str:
    """One or more words, as a list."""
    own = language.words_of(split)
    words = [own[place] for place in rng.permutation(len(own))[: rng.integers(1, most + 1)]]
    if language.script in _CAPITALS and language.name != "Turkish" and rng.random() < 0.3:
        words = [word[0].upper() + word[1:] for word in words]
    return language.comma.join(words)


def _sentence(rng: np.random.Generator, split: Split, language: Language) -> str:
    own = language.sentences_of(split)
    return own[rng.integers(len(own))]


FOREIGN = Family(("foreign-text",), _draw_text, LAYOUTS)
LANGUAGE = Family(("language",), _draw_language_page, LAYOUTS[:-1])
