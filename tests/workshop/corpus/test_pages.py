"""Pages of text: whole or not at all, each split with its own texts, each question with the answer that is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import typst
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.fonts import TYPST_FONTS
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, compose, has_clear_edges, hexadecimal
from stages.workshop.corpus.rendering.scene import NOT_THERE, Exchange, Look
from stages.workshop.corpus.rendering.split import SPLITS
from stages.workshop.corpus.rendering.tasks import FAMILIES, TASKS
from stages.workshop.corpus.rendering.typeset import quoted, shown, typeset

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]
PRINTED = ("word", "number", "line", "price", "date", "code")
NAMES = (*PRINTED, "lines", "table", "document", "memo", "formula", "problem", "foreign", "language")
# Those whose markup holds their texts as they are.
AS_WRITTEN = tuple(name for name in NAMES if name not in ("formula", "problem"))


def page(body: str, **changes: object) -> Page:
    usual = Page(body, Size(80, 40), "Libertinus Serif", 12.0, 8.0, (Exchange("word", "?", "x"),), margin=4.0)
    return replace(usual, **changes)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x85\u2028\u2029"), max_size=30))
def test_typst_reads_a_quoted_text_as_it_is(text: str) -> None:
    compiler = typst.Compiler(ignore_system_fonts=True)
    assert compiler.eval(f"{quoted(text)}.codepoints().map(str.to-unicode)") == str([*map(ord, text)]).replace(" ", "")


@pytest.mark.parametrize("place", [None, (0.0, 1.0)])
def test_what_runs_over_is_set_smaller_or_refused(place: tuple[float, float] | None) -> None:
    fits, long, huge = ("moon " * count for count in (2, 5, 30))
    for text, lower in ((fits, False), (long, True)):
        scene = compose(page(f"#flow(72pt)[{shown(text)}]", place=place), TYPST_FONTS)
        assert scene.picture.size == (80, 40) and (scene.facts["height"] != 12.0) == lower
        assert has_clear_edges(scene.picture, "#ffffff")
    with pytest.raises(PageOverflowError):
        compose(page(f"#flow(72pt)[{shown(huge)}]", place=place), TYPST_FONTS)


@pytest.mark.parametrize("body", ["#whole[{}]", "#box(width: 20pt)[#whole[{}]]", "{}"])
def test_what_is_too_wide_is_refused(body: str) -> None:
    wide = page(body.format(shown("incomprehensibilities")), smallest=12.0)
    for place in (None, (0.5, 0.5)):
        with pytest.raises(PageOverflowError):
            compose(replace(wide, place=place), TYPST_FONTS)
    assert compose(replace(wide, body=shown("a"), place=(0.5, 0.5)), TYPST_FONTS).picture.size == (80, 40)


def test_a_body_set_alone_lies_where_it_should() -> None:
    """Its ink is as far from the edges as the margin and its place say, and the same as on a whole page."""
    found = {}
    for place in ((0.0, 0.0), (1.0, 1.0)):
        ink = np.argwhere(np.asarray(compose(page(shown("HH"), place=place), TYPST_FONTS).picture.convert("L")) < 128)
        found[place] = ink
    first, last = found[0.0, 0.0], found[1.0, 1.0]
    assert (np.ptp(first, axis=0) == np.ptp(last, axis=0)).all()
    assert 3 <= first[:, 1].min() <= 6 and 80 - 7 <= last[:, 1].max() <= 80 - 4
    assert first[:, 0].max() < 20 < last[:, 0].min()
    whole = compose(page(shown("HH")), TYPST_FONTS)
    assert (
        np.ptp(np.argwhere(np.asarray(whole.picture.convert("L")) < 128), axis=0).tolist() == np.ptp(first, 0).tolist()
    )


def test_a_page_may_be_coloured_to_its_edges_if_it_says_so() -> None:
    filled = page("#rect(width: 100%, height: 100%, fill: ink)", margin=0.0)
    with pytest.raises(PageOverflowError):
        compose(filled, TYPST_FONTS)
    assert compose(replace(filled, bleed=True), TYPST_FONTS).picture.getpixel((0, 0)) == (0, 0, 0)


def test_wrong_markup_is_no_overflow() -> None:
    with pytest.raises(typst.TypstError, match="unknown variable"):
        typeset("#nothing")


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_text(look: Make, some_pages: Some, name: str) -> None:
    large = look(size=Size(384, 384))
    texts = {split: {text for page in some_pages(name, split, large, 60) for text in page.texts} for split in SPLITS}
    assert min(map(len, texts.values())) > 20
    assert texts["train"].isdisjoint(texts["heldout"])


@pytest.mark.parametrize("size", [Size(224, 224), Size(448, 224), Size(160, 400)])
@pytest.mark.parametrize("name", NAMES)
def test_pages_are_whole_and_can_be_read(look: Make, some_pages: Some, name: str, size: Size) -> None:
    """Nothing touches the edge, no text is lower than asked for, ink and paper differ, most pages need one try."""
    fitted, pages = 0, some_pages(name, "train", look(size=size, heights=(10.0, 30.0)), 10)
    for one in pages:
        try:
            scene = compose(one, TYPST_FONTS)
        except PageOverflowError:
            continue
        fitted += 1
        assert scene.picture.size == size and has_clear_edges(scene.picture, one.paper)
        height = scene.facts["height"]
        assert isinstance(height, float) and height >= 10.0
        pixels = np.asarray(scene.picture, int)
        assert np.abs(pixels - pixels[0, 0]).sum(axis=2).max() > 150
    assert fitted >= 7


@pytest.mark.parametrize("name", NAMES)
def test_questions_are_filled_in_and_asked_once(look: Make, some_pages: Some, name: str) -> None:
    wordings = set()
    for one in some_pages(name, "train", look(size=Size(384, 384)), 40):
        tasks = [exchange.task for exchange in one.exchanges]
        assert len(set(tasks)) == len(tasks) and set(tasks) <= set(FAMILIES[name].tasks)
        assert all(exchange.answer and exchange.answer == exchange.answer.strip() for exchange in one.exchanges)
        assert all(exchange.question[-1] in ".?" for exchange in (*one.exchanges, *one.absent))
        assert all((exchange.task, exchange.answer) == ("absent", NOT_THERE) for exchange in one.absent)
        wordings |= {exchange.question for exchange in one.exchanges}
    assert len(wordings) >= 3 and not any("{" in question for question in wordings)


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_every_text_stands_on_its_page(look: Make, some_pages: Some, written: Written, name: str) -> None:
    for one in some_pages(name, "train", look(size=Size(384, 384)), 25):
        assert set(one.texts) <= set(written(one))


@pytest.mark.parametrize("name", (*PRINTED, "foreign"))
def test_what_is_read_is_what_is_printed(look: Make, some_pages: Some, name: str) -> None:
    for one in some_pages(name, "heldout", look(size=Size(300, 300)), 25):
        (exchange,) = one.exchanges
        assert exchange.answer in one.texts
        if one.facts["layout"] == "lines":
            ordinal = exchange.question.split(" line")[0].split()[-1]
            assert one.texts[("first", "second", "third", "fourth").index(ordinal)] == exchange.answer
        else:
            assert one.texts == (exchange.answer,)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_layouts_are_not_trained(look: Make, some_pages: Some, name: str) -> None:
    layouts = FAMILIES[name].layouts
    held = frozenset({f"{name}/{layouts[-1]}"})
    for split, expected in (("train", set(layouts[:-1])), ("heldout", {layouts[-1]})):
        pages = some_pages(name, split, look(size=Size(400, 400), heldout_layouts=held), 70)
        assert {one.facts["layout"] for one in pages} == expected
    free = some_pages(name, "heldout", look(size=Size(400, 400)), 90)
    assert {one.facts["layout"] for one in free} == set(layouts)


def test_absent_questions_are_about_the_pages_that_are_drawn(look: Make, some_pages: Some) -> None:
    tasks = {"memo", "table"}
    pages = some_pages("absent", "train", look(size=Size(384, 384), families=("memo", "absent", "table")), 40)
    kinds = {"memo" if "fields" in one.facts else "table" if "table" in one.facts else "?" for one in pages}
    assert kinds == tasks
    for one in pages:
        assert [(exchange.task, exchange.answer) for exchange in one.exchanges] == [("absent", NOT_THERE)]


def test_every_task_belongs_to_one_family() -> None:
    tasks = [task for family in FAMILIES.values() for task in family.tasks]
    assert len(set(tasks)) == len(tasks) == len(TASKS)


def test_papers_are_written_in_hexadecimal() -> None:
    assert hexadecimal(np.array([0, 15, 255])) == "#000fff"
