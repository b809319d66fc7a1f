"""Pages told in words hold what the pictures of them show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.artifacts.errors import BluelmError
from stages.data_render import RenderConfig, run
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.page_text import words_on
from stages.workshop.corpus.rendering.scene import Look

TOLD = ["word", "price", "date", "code", "lines", "table", "memo", "receipt", "form", "chart"]
TOLD += ["document", "screen-list"]


@pytest.mark.parametrize("name", TOLD)
def test_every_text_of_a_page_is_told(
    look: Callable[..., Look], some_pages: Callable[..., list[Page]], name: str
) -> None:
    """What the page itself says belongs to a split stands in what is told, piece by piece or within one."""
    for page in some_pages(name, "train", look(size=Size(448, 448)), 20):
        told = words_on(page)
        whole = "\n".join(told)
        assert all(text in told or text in whole for text in page.texts)


def test_a_corpus_of_text_has_no_pictures(tmp_path: Path) -> None:
    config = RenderConfig(tasks=("receipt-total", "word", "absent"), train=30, heldout=6, side=448, form="text")
    list(run(config, tmp_path / "text", threads=1))
    assert not (tmp_path / "text" / "images").exists()
    for split, questions in (("train", 0), ("heldout", 18)):
        rows = json.loads((tmp_path / "text" / f"{split}.json").read_text())
        assert len(rows) == (questions or 30) and not any("image" in row for row in rows)
        for row in rows:
            told, answer = (turn["value"] for turn in row["conversations"][:2])
            assert "<image>" not in told and told.splitlines()[-1][-1] in "?."
            assert answer in told or answer == "not in the picture"


def test_what_is_no_page_cannot_be_told() -> None:
    config = RenderConfig(tasks=("colour", "word"), train=3, heldout=1, form="text")
    with pytest.raises(BluelmError, match="single-shape draws pictures, not pages") as caught:
        list(run(config, Path("/nowhere/at/all")))
    assert "Leave out colour" in caught.value.fix
