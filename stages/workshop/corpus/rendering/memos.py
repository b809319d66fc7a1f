"""A notice with labelled fields and a list: what a field says, which item stands where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.sentences import draw_phrase, draw_title
from stages.workshop.corpus.rendering.strings import draw_code, draw_date, draw_figure, draw_price
from stages.workshop.corpus.rendering.tables import distinct
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_invented

FIELD_QUESTIONS = (
    'What does the field "{label}" say?',
    "What stands beside {label}?",
    "What is the entry for {label}?",
)
ITEM_QUESTIONS = ("What is item {number} of the list?", "Read item number {number} of the list.")
NEXT_QUESTIONS = ('Which item comes after "{item}"?', 'What is listed right below "{item}"?')
COUNT_QUESTIONS = ("How many items does the list have?", "Count the items of the list.")
LAYOUTS = ("plain", "aligned", "boxed", "checklist", "numbered", "bold")
_LINE, _LETTER = 1.45, 0.57
_FEWEST, _MOST = 3, 8
_LETTERS = 18
_MARKS = {"checklist": "#box(stroke: 0.06em + ink, width: 0.7em, height: 0.7em)", "numbered": "{number}."}


def _name(rng: np.random.Generator, split: Split) -> str:
    return f"{draw_invented(rng, split).capitalize()} {draw_invented(rng, split).capitalize()}"


_FIELDS: Mapping[str, Callable[[np.random.Generator, Split], str]] = {
    "From": _name,
    "To": _name,
    "Contact": _name,
    "Date": draw_date,
    "Due": draw_date,
    "Subject": draw_phrase,
    "Note": draw_phrase,
    "Number": draw_code,
    "Reference": draw_code,
    "Room": draw_figure,
    "Amount": draw_price,
    "Price": draw_price,
}


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    margin = 0.05 * min(look.size)
    height = look.draw_height(rng)
    layout = look.draw_layout(rng, split, "memo", LAYOUTS)
    letters = int((look.size.width - 2 * margin) / (height * _LETTER))
    lines = int((look.size.height - 2 * margin) / (height * _LINE)) - 3
    if letters < _LETTERS or lines < 2 + _FEWEST:
        raise PageOverflowError
    labels = [str(label) for label in rng.permutation(list(_FIELDS))[: rng.integers(2, min(6, lines - _FEWEST + 1))]]
    fields = {label: _fitting(rng, split, _FIELDS[label], letters - 12) for label in labels}
    count = int(rng.integers(_FEWEST, min(_MOST, lines - len(fields)) + 1))
    items = distinct(count, lambda: _fitting(rng, split, draw_phrase, letters - 4))
    title = _fitting(rng, split, draw_title, int(letters / 1.4))
    paper, ink = draw_paper(rng)
    return Page(
        _markup(title, fields, items, layout),
        look.size,
        font=look.draw_font(rng, split),
        height=height,
        smallest=look.heights[0],
        exchanges=tuple(_exchanges(rng, fields, items)),
        texts=(title, *fields.values(), *items),
        absent=tuple(_absent(rng, fields, items)),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout, "fields": fields, "items": items},
    )


def _fitting(
    rng: np.random.Generator, split: Split, draw: Callable[[np.random.Generator, Split], str], letters: int
) -> str:
    """A text that is not longer than that."""
    for _ in range(20):
        text = draw(rng, split)
        if len(text) <= letters:
            return text
    raise PageOverflowError


def _exchanges(rng: np.random.Generator, fields: Mapping[str, str], items: Sequence[str]) -> list[Exchange]:
    label = list(fields)[rng.integers(len(fields))]
    number, before = int(rng.integers(len(items))), int(rng.integers(len(items) - 1))
    return [
        Exchange("memo-field", word_question(rng, FIELD_QUESTIONS, label=label), fields[label]),
        Exchange("memo-item", word_question(rng, ITEM_QUESTIONS, number=str(number + 1)), items[number]),
        Exchange("memo-next", word_question(rng, NEXT_QUESTIONS, item=items[before]), items[before + 1]),
        Exchange("memo-count", word_question(rng, COUNT_QUESTIONS), str(len(items))),
    ]


def _absent(rng: np.random.Generator, fields: Mapping[str, str], items: Sequence[str]) -> list[Exchange]:
    """Asks for a field and for an item that are not there."""
    others = [label for label in _FIELDS if label not in fields]
    number = len(items) + int(rng.integers(1, 4))
    return [
        not_there(word_question(rng, FIELD_QUESTIONS, label=others[rng.integers(len(others))])),
        not_there(word_question(rng, ITEM_QUESTIONS, number=str(number))),
    ]


def _markup(title: str, fields: Mapping[str, str], items: Sequence[str], layout: str) -> str:
    heading = f"#text(1.25em)[#strong[{shown(title)}]]"
    if layout == "aligned":
        cells = ", ".join(f"[{shown(label)}], [{shown(value)}]" for label, value in fields.items())
        body = f"#grid(columns: 2, column-gutter: 1em, row-gutter: 0.4em, {cells})"
    else:
        strong = layout in ("bold", "boxed")
        named = ((f"#strong[{shown(label + ':')}]" if strong else shown(label + ":"), v) for label, v in fields.items())
        body = "\n\n".join(f"{label} {shown(value)}" for label, value in named)
    if layout == "boxed":
        body = f"#block(stroke: 0.05em + ink, inset: 0.5em)[{body}]"
    mark = _MARKS.get(layout, "#sym.bullet")
    listed = "\n\n".join(f"{mark.format(number=number)} {shown(item)}" for number, item in enumerate(items, start=1))
    return f"{heading}\n#v(0.7em, weak: true)\n{body}\n#v(0.9em, weak: true)\n{listed}"


MEMO = Family(("memo-field", "memo-item", "memo-next", "memo-count"), _draw, LAYOUTS)
