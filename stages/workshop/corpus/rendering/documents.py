"""A page of text under a heading, in paragraphs: its heading, its lines, their words, all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.sentences import draw_sentence, draw_title
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_word

HEADING_QUESTIONS = ("What is the heading?", "What is the title of the page?", "Read the heading.")
BEGINS_QUESTIONS = ('Read the line that begins with "{start}".', 'Which line begins with "{start}"? Read it.')
FIRST_QUESTIONS = (
    "What is the first word of line {number} below the heading?",
    "Which word does line {number} below the heading begin with?",
)
LINES_QUESTIONS = ("How many lines of text are below the heading?", "Count the lines of text below the heading.")
TEXT_QUESTIONS = ("Read the whole page.", "Write down all the text.", "Transcribe the page.")
NO_NUMBERS = " Leave out the line numbers."
LAYOUTS = ("plain", "centred", "ruled", "framed", "numbered", "letterhead", "indented")
# Height of a line, of a gap and of the heading with what is around it, and width of a letter, over the text's height.
_LINE, _GAP, _HEAD, _LETTER = 1.32, 0.6, 3.2, 0.56
_SHORTEST, _LONGEST = 14, 64
_PARAGRAPHS = 4
_HEADINGS = {
    "centred": "#align(center)[#text(1.3em)[#strong[{title}]]]",
    "ruled": "#text(1.3em)[#strong[{title}]]\n#line(length: 100%, stroke: 0.05em + ink)",
    "letterhead": "#block(fill: ink, width: 100%, inset: 0.4em)[#text(1.2em, fill: paper)[#strong[{title}]]]",
}
_PLAIN_HEADING = "#text(1.3em)[#strong[{title}]]"


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    margin = 0.05 * min(look.size)
    height = look.draw_height(rng)
    layout = look.draw_layout(rng, split, "document", LAYOUTS)
    letters = int((look.size.width - 2 * margin) / (height * _LETTER)) - (4 if layout in ("framed", "numbered") else 0)
    lines = int(((look.size.height - 2 * margin) / height - _HEAD) / _LINE)
    if letters < _SHORTEST or lines < 2:
        raise PageOverflowError
    title = draw_title(rng, split)
    paragraphs = _draw_paragraphs(rng, split, min(letters, _LONGEST), int(rng.integers(2, lines + 1)))
    if not paragraphs or len(title) * 1.4 > letters:
        raise PageOverflowError
    paper, ink = draw_paper(rng)
    every = tuple(line for paragraph in paragraphs for line in paragraph)
    return Page(
        _markup(title, paragraphs, layout),
        look.size,
        font=look.draw_font(rng, split),
        height=height,
        smallest=look.heights[0],
        exchanges=tuple(_exchanges(rng, title, every, layout)),
        texts=(title, *every),
        absent=tuple(_absent(rng, split, every)),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout, "title": title, "lines": every},
    )


def _draw_paragraphs(rng: np.random.Generator, split: Split, letters: int, most: int) -> list[list[str]]:
    """Paragraphs of whole sentences, broken into lines of at most so many letters, at most so many lines in all."""
    paragraphs: list[list[str]] = []
    left = float(most)
    for _ in range(rng.integers(1, _PARAGRAPHS + 1)):
        sentences = [draw_sentence(rng, split) for _ in range(rng.integers(1, 9))]
        while sentences and len(broken(" ".join(sentences), letters)) > left:
            sentences.pop()
        if not sentences:
            break
        paragraphs.append(broken(" ".join(sentences), letters))
        left -= len(paragraphs[-1]) + _GAP
    return paragraphs


def broken(text: str, letters: int) -> list[str]:
    """A text as lines of at most so many letters; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _exchanges(rng: np.random.Generator, title: str, lines: Sequence[str], layout: str) -> list[Exchange]:
    found = [Exchange("heading", word_question(rng, HEADING_QUESTIONS), title)]
    starts = [" ".join(line.split(" ")[:2]) for line in lines]
    told = [number for number, start in enumerate(starts) if starts.count(start) == 1 and start != lines[number]]
    if told:
        number = told[rng.integers(len(told))]
        question = word_question(rng, BEGINS_QUESTIONS, start=starts[number])
        found.append(Exchange("line-begins", question, lines[number]))
    plain = [number for number, line in enumerate(lines) if line.split(" ")[0].isalpha()]
    if plain:
        number = plain[rng.integers(len(plain))]
        question = word_question(rng, FIRST_QUESTIONS, number=str(number + 1))
        found.append(Exchange("first-word", question, lines[number].split(" ")[0]))
    found.append(Exchange("line-count", word_question(rng, LINES_QUESTIONS), str(len(lines))))
    question = word_question(rng, TEXT_QUESTIONS) + (NO_NUMBERS if layout == "numbered" else "")
    found.append(Exchange("page-text", question, "\n".join((title, *lines))))
    return found


def _absent(rng: np.random.Generator, split: Split, lines: Sequence[str]) -> list[Exchange]:
    """Asks for a line that is not there."""
    start = f"{draw_word(rng, split).capitalize()} {draw_word(rng, split)}"
    if any(line.startswith(start) for line in lines):
        return []
    return [not_there(word_question(rng, BEGINS_QUESTIONS, start=start))]


def _markup(title: str, paragraphs: Sequence[Sequence[str]], layout: str) -> str:
    heading = _HEADINGS.get(layout, _PLAIN_HEADING).format(title=shown(title))
    parts = []
    number = 0
    for paragraph in paragraphs:
        lines = []
        for line in paragraph:
            number += 1
            count = f"#box(width: 1.8em)[{number}]" if layout == "numbered" else ""
            indent = "#h(1.5em)" if layout == "indented" and line is paragraph[0] else ""
            lines.append(f"[{indent}{count}{shown(line)}]")
        parts.append("#stack(spacing: 0.32em, " + ", ".join(lines) + ")")
    body = f"\n#v({_GAP}em, weak: true)\n".join(parts)
    text = f"{heading}\n#v(0.5em, weak: true)\n{body}"
    return f"#block(stroke: 0.06em + ink, inset: 0.8em)[{text}]" if layout == "framed" else f"#snug[{text}]"


DOCUMENT = Family(("heading", "line-begins", "first-word", "line-count", "page-text"), _draw, LAYOUTS)
