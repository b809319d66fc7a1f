"""Receipts, forms, charts, screens: each split has its own texts, nothing is cut, all held-out tasks can be asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, compose
from stages.workshop.corpus.rendering.scene import NOT_THERE, Look
from stages.workshop.corpus.rendering.split import SPLITS
from stages.workshop.corpus.rendering.tasks import FAMILIES

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]
NAMES = ("receipt", "form", "chart", "screen-list", "screen-settings", "screen-dialog", "screen-chat", "screen-home")
SIZES = [Size(256, 256), Size(200, 400), Size(448, 224)]


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_text(look: Make, some_pages: Some, name: str) -> None:
    large = look(size=Size(384, 384))
    texts = {split: {text for page in some_pages(name, split, large, 60) for text in page.texts} for split in SPLITS}
    assert min(map(len, texts.values())) > 40
    assert texts["train"].isdisjoint(texts["heldout"])


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_what_their_markup_says(look: Make, some_pages: Some, written: Written, name: str) -> None:
    """All texts of a page stand in its markup, and what is not there is not there."""
    for page in some_pages(name, "train", look(size=Size(384, 384)), 30):
        shown = written(page)
        joined = "\n".join(shown)
        assert all(text in joined for text in page.texts)
        (absent,) = page.absent
        assert absent.answer == NOT_THERE
        tasks = [exchange.task for exchange in page.exchanges]
        assert len(set(tasks)) == len(tasks) and set(tasks) <= set(FAMILIES[name].tasks)
        assert all("{" not in exchange.question for exchange in page.exchanges)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_pages_can_be_asked_everything(look: Make, some_pages: Some, name: str) -> None:
    large = look(size=Size(300, 600))
    whole = sum(len(page.exchanges) == len(FAMILIES[name].tasks) for page in some_pages(name, "heldout", large, 20))
    assert whole >= 8


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_pages_fit_where_they_were_drawn_to_fit(look: Make, some_pages: Some, name: str, size: Size) -> None:
    """Room is told generously: nearly every page can be typeset, none with text below the least height."""
    fitted, drawn = 0, some_pages(name, "train", look(size=size), 8, seed=9)
    for page in drawn:
        try:
            scene = compose(page, look().fonts)
        except PageOverflowError:
            continue
        fitted += 1
        assert scene.picture.size == size
        height = scene.facts["height"]
        assert isinstance(height, float) and height >= look().heights[0]
        pixels = np.asarray(scene.picture, int)
        assert np.abs(pixels - pixels[0, 0]).sum(axis=2).max() > 150
    assert fitted >= 7


@pytest.mark.parametrize("name", NAMES)
def test_held_out_layouts_are_not_trained(look: Make, some_pages: Some, name: str) -> None:
    layouts = FAMILIES[name].layouts
    assert len(layouts) > 1
    held = frozenset({f"{name}/{layouts[-1]}"})
    size = Size(400, 400)
    for split, expected in (("train", set(layouts[:-1])), ("heldout", {layouts[-1]})):
        found = {page.facts["layout"] for page in some_pages(name, split, look(size=size, heldout_layouts=held), 60)}
        assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_page_too_small_for_its_text_is_refused(look: Make, name: str) -> None:
    for index in range(10):
        with pytest.raises(PageOverflowError):
            FAMILIES[name].draw(np.random.default_rng(index), "train", look(size=Size(40, 40)))
