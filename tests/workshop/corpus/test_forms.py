"""Forms: each answer is what stands beside its label, and a box is ticked where its answer says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.entries import draw_fields
from stages.workshop.corpus.rendering.form_layouts import LAYOUTS
from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.scene import Exchange, Look
from stages.workshop.corpus.rendering.split import belongs

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]


def asked(page: Page, task: str) -> Exchange | None:
    return next((exchange for exchange in page.exchanges if exchange.task == task), None)


def forms(look: Make, some_pages: Some, count: int = 80) -> list[Page]:
    return some_pages("form", "heldout", look(size=Size(384, 512)), count)


def test_a_field_s_answer_stands_after_its_label(look: Make, some_pages: Some, written: Written) -> None:
    layouts = set()
    for page in forms(look, some_pages):
        shown = [text.rstrip(":") for text in written(page)]
        question = asked(page, "form-field")
        assert question is not None
        (label,) = {
            text for text in shown[:-1] if re.search(rf"(field|for|up) {re.escape(text)}( |\?|\.)", question.question)
        }
        assert shown[shown.index(label) + 1] == question.answer
        title = asked(page, "form-title")
        assert title is not None and title.answer == shown[0]
        layouts.add(page.facts["layout"])
    assert layouts == set(LAYOUTS)


def test_boxes_are_ticked_as_the_answers_say(look: Make, some_pages: Some) -> None:
    """An option's box is the nearest one in the markup; it is ticked where something is drawn inside it."""
    answers: Counter[str] = Counter()
    for page in forms(look, some_pages):
        question = asked(page, "form-tick")
        if question is None:
            continue
        # One piece of markup for each box with its text, whichever stands first.
        pieces = re.split(r"box\(\{", page.body.replace("\n", " "))[1:]
        option = max(
            (
                text
                for piece in pieces
                for text in re.findall(r'text\("([^"]*)"\)', piece)[:1]
                if text in question.question
            ),
            key=len,
        )
        (piece,) = (piece for piece in pieces if f'text("{option}")' in piece)
        piece = piece.split("sym.zws")[0]
        ticked = "line(start" in piece or "square(size" in piece or "circle(radius" in piece
        assert question.answer == ("yes" if ticked else "no")
        answers[question.answer] += 1
        choice = asked(page, "form-choice")
        assert choice is not None and f'text("{choice.answer}")' in page.body
    assert min(answers["yes"], answers["no"]) > 0.3 * answers.total() > 10


def test_a_cell_stands_where_row_and_column_meet(look: Make, some_pages: Some, written: Written) -> None:
    checked = 0
    for page in forms(look, some_pages):
        question = asked(page, "form-cell")
        if question is None:
            continue
        shown = written(page)
        rest = shown[shown.index("Item") :]
        across = next(index for index, text in enumerate(rest) if text.isdecimal()) - 2
        columns, cells = rest[1 : across + 1], rest[across + 1 :]
        rows = {cells[at]: cells[at + 1 : at + across + 1] for at in range(0, len(cells) - across, across + 1)}
        row = max((name for name in rows if name in question.question), key=len)
        column = next(index for index, name in enumerate(columns) if name in question.question)
        assert rows[row][column] == question.answer
        checked += 1
    assert checked > 20


def test_fields_have_different_labels_of_their_split() -> None:
    for split in ("train", "heldout"):
        fields = draw_fields(np.random.default_rng(2), split, 10, 40, beside=True)  # type: ignore[arg-type]
        labels = [field.label for field in fields]
        assert len(set(labels)) == 10
        assert all(belongs(label.lower(), split) for label in labels)  # type: ignore[arg-type]
        assert all(len(field.label) + 2 + len(field.value) <= 40 for field in fields)
