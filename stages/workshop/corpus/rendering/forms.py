"""Forms: what stands in a field, whether a box is ticked and which, what a table's cell says, what the form is for."""

from __future__ import annotations

import math

import numpy as np

from stages.workshop.corpus.rendering.entries import (
    Choice,
    Field,
    Table,
    draw_choice,
    draw_fields,
    draw_label,
    draw_table,
    draw_title,
)
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.form_layouts import LAYOUTS, STYLES, markup
from stages.workshop.corpus.rendering.names import draw_distinct
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper
from stages.workshop.corpus.rendering.room import LETTER, Room
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question

FIELD_QUESTIONS = (
    "What stands in the field {label}?",
    "What is entered for {label}?",
    "What does the field {label} say?",
    "Read the field {label} on the form.",
    "Look up {label} on the form.",
)
TICK_QUESTIONS = ("Is the box {option} ticked?", "Is {option} ticked?", "Has someone ticked {option}?")
CHOICE_QUESTIONS = (
    "Which box is ticked for {group}?",
    "Which option is ticked under {group}?",
    "What was chosen for {group}?",
)
TABLE_QUESTIONS = (
    "What is the {column} of {row}?",
    "Which number stands under {column} for {row}?",
    "Look up the {column} of {row} in the table.",
)
TITLE_QUESTIONS = ("What is the title of the form?", "What does the heading of the form say?", "What form is this?")
YES, NO = "yes", "no"
_FEWEST_LETTERS, _MOST_LETTERS = 17, 46
_MOST_FIELDS = 16
# Lines that the title with its gap takes, and a row of a table against one of text.
_TITLE, _ROW = 1.7, 1.15


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    layout = look.draw_layout(rng, split, "form", LAYOUTS)
    style = STYLES[layout]
    margin = max(4.0, 0.03 * min(look.size))
    room, least = Room.on(look.size, margin), look.heights[0]
    # The larger the text, the fewer letters a line: a form fills its page.
    letters = min(room.letters(least), int(rng.integers(_FEWEST_LETTERS, _MOST_LETTERS)) * style.across)
    if letters < _FEWEST_LETTERS * style.across:
        raise PageOverflowError
    height = min(room.width / (LETTER * letters), look.heights[1])
    title = draw_title(rng, split)
    left = room.lines(max(height, least)) - _TITLE * math.ceil(1.1 * len(title) / letters)
    choices, used = _draw_choices(rng, split, letters, left - 2 * style.lines)
    left -= used
    table = None
    if left - 2 * style.lines > 4 * _ROW and (split == "heldout" or rng.random() < 0.5):
        table = draw_table(rng, split, int((left - 2 * style.lines) / _ROW) - 2, letters)
        left -= (len(table.rows) + 1.5) * _ROW
    most = int(left / style.lines) * style.across
    if most < 2:
        raise PageOverflowError
    count = int(rng.integers(2, min(most, _MOST_FIELDS) + 1, 3).max())
    fields = draw_fields(rng, split, count, letters // style.across - 2, style.beside)
    paper, ink = draw_paper(rng)
    exchanges = _exchanges(rng, title, fields, choices, table)
    return Page(
        body=markup(rng, title, fields, choices, table, layout),
        size=look.size,
        font=look.draw_font(rng, split),
        height=max(height, least),
        smallest=least,
        exchanges=exchanges,
        texts=_texts(title, fields, choices, table),
        absent=(_absent(rng, split, fields, choices),),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout, "title": title, "fields": fields, "choices": choices, "table": table},
    )


def _draw_choices(
    rng: np.random.Generator, split: Split, letters: int, lines: float
) -> tuple[tuple[Choice, ...], float]:
    """One group with one ticked box and perhaps one with any number, and the lines that they take."""
    choices: list[Choice] = []
    used = 0.0
    for single in (True, False):
        if choices and rng.random() < 0.6:
            break
        taken = tuple(text for choice in choices for text in (*choice.options, choice.label))
        choice = draw_choice(rng, split, int(rng.integers(2, 5)), single, taken)
        long = len(choice.label) + 2 + sum(len(option) + 4 for option in choice.options)
        # Words do not fill a line to its end.
        needs = math.ceil(1.25 * long / letters) + 0.4
        if choice.label in taken or used + needs > lines:
            break
        choices.append(choice)
        used += needs
    return tuple(choices), used


def _exchanges(
    rng: np.random.Generator,
    title: str,
    fields: tuple[Field, ...],
    choices: tuple[Choice, ...],
    table: Table | None,
) -> tuple[Exchange, ...]:
    field = fields[rng.integers(len(fields))]
    found = [
        Exchange("form-field", word_question(rng, FIELD_QUESTIONS, label=field.label), field.value),
        Exchange("form-title", word_question(rng, TITLE_QUESTIONS), title),
    ]
    if choices:
        choice = choices[rng.integers(len(choices))]
        # As many boxes that are ticked are asked for as are not, where there are both.
        groups = [[i for i in range(len(choice.options)) if (i in choice.ticked) is wanted] for wanted in (True, False)]
        places = [group for group in groups if group][int(rng.integers(sum(map(bool, groups))))]
        place = places[rng.integers(len(places))]
        answer = YES if place in choice.ticked else NO
        found.append(Exchange("form-tick", word_question(rng, TICK_QUESTIONS, option=choice.options[place]), answer))
        single = next(choice for choice in choices if choice.single)
        question = word_question(rng, CHOICE_QUESTIONS, group=single.label)
        found.append(Exchange("form-choice", question, single.options[single.ticked[0]]))
    if table is not None:
        row, column = table.rows[rng.integers(len(table.rows))], int(rng.integers(len(table.columns)))
        question = word_question(rng, TABLE_QUESTIONS, column=table.columns[column], row=row[0])
        found.append(Exchange("form-cell", question, row[column + 1]))
    return tuple(found)


def _absent(rng: np.random.Generator, split: Split, fields: tuple[Field, ...], choices: tuple[Choice, ...]) -> Exchange:
    taken = [*(field.label for field in fields), *(choice.label for choice in choices)]
    label = draw_distinct(1, lambda: draw_label(rng, split), taken)[0]
    return not_there(word_question(rng, FIELD_QUESTIONS, label=label))


def _texts(title: str, fields: tuple[Field, ...], choices: tuple[Choice, ...], table: Table | None) -> tuple[str, ...]:
    written = [title, *(text for field in fields for text in (field.label, field.value))]
    written += [text for choice in choices for text in (choice.label, *choice.options)]
    if table is not None:
        written += [*table.columns, *(text for row in table.rows for text in row)]
    return tuple(written)


FORMS = Family(("form-field", "form-title", "form-tick", "form-choice", "form-cell"), _draw, LAYOUTS)
