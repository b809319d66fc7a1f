"""Printed pictures hold their texts whole, and each split has its own words and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.printed import PRINTED_NUMBER, PRINTED_WORD
from stages.workshop.corpus.rendering.scene import Look, Scene, Split
from stages.workshop.corpus.rendering.tables import TABLE
from stages.workshop.corpus.rendering.typeset import FONTS, quoted, typeset
from stages.workshop.corpus.rendering.vocabulary import WORDS, draw_number, draw_word, is_held_out

Make = Callable[..., Look]
FAMILIES = [PRINTED_WORD, PRINTED_NUMBER, TABLE]


def scenes(family: Any, split: Split, look: Look, count: int) -> list[Scene]:
    return [family.draw(np.random.default_rng([6, index]), split, look) for index in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_text(look: Make, family: Any) -> None:
    train = {text for scene in scenes(family, "train", look(), 60) for text in scene.texts}
    held = {text for scene in scenes(family, "heldout", look(), 30) for text in scene.texts}
    assert train and held and train.isdisjoint(held)


def test_every_word_belongs_to_one_split() -> None:
    assert len(set(WORDS)) == len(WORDS) > 300
    held = {word for word in WORDS if is_held_out(word)}
    assert 0.1 < len(held) / len(WORDS) < 0.3
    rng = np.random.default_rng(0)
    assert {draw_word(rng, "heldout") for _ in range(600)} == held
    assert not any(is_held_out(draw_number(rng, "train")) for _ in range(300))


@pytest.mark.parametrize("size", [Size(64, 64), Size(160, 80), Size(80, 240)])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_cut_off_at_the_edge(look: Make, family: Any, size: Size) -> None:
    for scene in scenes(family, "train", look(size=size), 12):
        pixels = np.asarray(scene.picture, dtype=int)
        assert (scene.picture.width, scene.picture.height) == size
        paper = pixels[0, 0]
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == paper).all()
        assert np.abs(pixels - paper).sum(axis=2).max() > 150


def test_the_answer_is_the_text_in_the_picture(look: Make) -> None:
    for family in (PRINTED_WORD, PRINTED_NUMBER):
        for scene in scenes(family, "train", look(), 10):
            assert scene.texts == (scene.exchanges[0].answer,)


def test_a_table_s_answer_stands_where_row_and_column_meet(look: Make) -> None:
    shapes = set()
    for scene in scenes(TABLE, "train", look(), 40):
        table, exchange = scene.facts["table"], scene.exchanges[0]
        assert isinstance(table, list)
        assert tuple(itertools.chain.from_iterable(table)) == scene.texts
        words = exchange.question.rstrip("?.").split()
        column, row = words[words.index("the") + 1], words[-1]
        answers = [line[table[0].index(column)] for line in table if line[0] == row]
        assert answers == [exchange.answer]
        shapes.add((len(table), len(table[0])))
    assert shapes == set(itertools.product((3, 4, 5), (2, 3)))


@pytest.mark.parametrize("font", FONTS)
def test_pages_come_from_typst_s_own_fonts(font: str) -> None:
    def page(text: str) -> bytes:
        body = f"#text({quoted(text)})"
        return typeset(body, Size(60, 30), margin=2, paper="#ffffff", ink="#000000", font=font, height=12).tobytes()

    assert page("moon") == page("moon")
    assert len({page("moon"), page("noon"), page('"\\#')}) == 3
    others = [typeset(quoted("moon"), Size(60, 30), margin=2, paper="#ffffff", ink="#000000", font=other, height=12)
              for other in FONTS if other != font]  # fmt: skip
    assert all(other.tobytes() != page("moon") for other in others)
