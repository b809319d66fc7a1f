"""Glyph pages: what is asked of a patch is what is drawn there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from stages.artifacts.errors import RecipeError
from stages.workshop.corpus.rendering.faces import Face, find_faces
from stages.workshop.corpus.rendering.glyph_page import GlyphLook, GlyphPage, Pen, _draw_face, draw_glyph_page
from stages.workshop.corpus.rendering.glyph_text import alphabet, draw_text
from stages.workshop.corpus.rendering.split import is_held_out

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SCRIPTS = ("latin", "greek")
SIDE, PATCH = 112, 8


@pytest.fixture(scope="module")
def families() -> tuple[tuple[Face, ...], ...]:
    return find_faces([str(FONTS)], ["DejaVu Serif", "DejaVu Sans"], SCRIPTS)


@pytest.fixture(scope="module")
def faces(families: tuple[tuple[Face, ...], ...]) -> tuple[Face, ...]:
    return tuple(chain.from_iterable(families))


@pytest.fixture
def look(families: tuple[tuple[Face, ...], ...]) -> GlyphLook:
    return GlyphLook(SIDE, PATCH, 3, (9.0, 36.0), families, alphabet(SCRIPTS))


def read(page: GlyphPage, look: GlyphLook) -> list[str]:
    """The characters of every row of patches, from left to right."""
    rows = page.slots.reshape(SIDE // PATCH, -1)
    return ["".join(look.alphabet[number - 1] for number in row if number) for row in rows]


def test_faces_are_the_families_with_what_they_cover(families: tuple[tuple[Face, ...], ...]) -> None:
    assert [{face.family for face in faces} for faces in families] == [{"DejaVu Sans"}, {"DejaVu Serif"}]
    assert [Path(faces[0].path).name for faces in families] == ["DejaVuSans.ttf", "DejaVuSerif.ttf"]
    for faces in families:
        assert len(set(faces)) == len(faces) >= 4 and all(face.scripts == SCRIPTS for face in faces)
    with pytest.raises(RecipeError, match=r"No face of Nothing, STIXSizeOneSym in .* covers English"):
        find_faces([str(FONTS)], ["Nothing", "DejaVu Sans", "STIXSizeOneSym"], SCRIPTS)


def test_a_family_of_many_faces_is_no_more_likely_than_one_of_few(look: GlyphLook, faces: tuple[Face, ...]) -> None:
    """Nine faces of one family, one of the other: half of the pages are in each, most in the usual face."""
    lopsided = replace(look, families=(faces[:1] * 9, faces[-1:]))
    drawn = Counter(_draw_face(np.random.default_rng(seed), lopsided).family for seed in range(400))
    assert all(160 < count < 240 for count in drawn.values()) and len(drawn) == 2
    usual = sum(
        _draw_face(np.random.default_rng(seed), look) in {family[0] for family in look.families} for seed in range(400)
    )
    assert 240 < usual < 360


@settings(max_examples=60, deadline=None)
@given(
    letters=st.text("HOXMWIo08", min_size=1, max_size=6),
    height=st.floats(12, 40),
    across=st.floats(2, 60),
    down=st.floats(45, 100),
    number=st.integers(0, 7),
)
def test_a_letter_is_asked_of_a_patch_at_its_middle(
    faces: tuple[Face, ...], letters: str, height: float, across: float, down: float, number: int
) -> None:
    """Of letters as wide left as right: against the box of the ink of each, drawn alone where the text goes on."""
    look = GlyphLook(SIDE, PATCH, 3, (9.0, 36.0), (faces,), alphabet(SCRIPTS))
    face, slots = faces[number % len(faces)], np.zeros((SIDE // PATCH, SIDE // PATCH, 3), np.int64)
    Pen(ImageDraw.Draw(Image.new("RGB", (2 * SIDE, 2 * SIDE))), slots, look, "#ffffff").write(
        letters, face, height, across, down
    )
    font = ImageFont.truetype(face.path, round(2 * height, 1), index=face.index, layout_engine=ImageFont.Layout.BASIC)
    for place, letter in enumerate(letters):
        left, top, right, bottom = font.getbbox(letter, anchor="ls")
        middle = across + (font.getlength(letters[:place]) + (left + right) / 2) / 2
        row = (down + (top + bottom) / 4) / PATCH
        # Slanted letters and those that hang below are not exactly where their advance says: a patch to each side.
        near = {col for col in range(SIDE // PATCH) if abs((col + 0.5) * PATCH - middle) < PATCH / 2 + 0.12 * height}
        found = {
            col for line, col, _ in np.argwhere(slots == look.alphabet.index(letter) + 1) if abs(line + 0.5 - row) < 1.2
        }
        assert not near or near & found or middle + 0.12 * height > SIDE


def test_a_page_reads_as_it_was_written(look: GlyphLook, faces: tuple[Face, ...]) -> None:
    slots = np.zeros((SIDE // PATCH, SIDE // PATCH, 3), np.int64)
    canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    pen = Pen(ImageDraw.Draw(canvas), slots, look, "#000000")
    for number, text in enumerate(("Total 8.50", "αβγ Il.", "WWW")):
        pen.write(text, faces[0], 14.0, 5.0, 20.0 + 24 * number)
    page = GlyphPage(np.zeros((3, SIDE, SIDE), np.uint8), slots.reshape(-1, 3))
    found = [row for row in read(page, look) if row]
    # A line may cover the middles of two rows of patches.
    assert [row for row, before in zip(found, ["", *found], strict=False) if row != before] == [
        "Total8.50",
        "αβγIl.",
        "WWW",
    ]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_pages_are_a_function_of_their_seed(look: GlyphLook, split: str) -> None:
    for seed in range(20):
        first, again = (draw_glyph_page(np.random.default_rng(seed), look, split) for _ in range(2))  # type: ignore[arg-type]
        assert first.tile.shape == (3, SIDE, SIDE) and first.slots.shape == ((SIDE // PATCH) ** 2, 3)
        assert (first.tile == again.tile).all() and (first.slots == again.slots).all()
        assert first.slots.max() <= len(look.alphabet)
        # Slots fill from the left.
        assert not ((first.slots[:, :-1] == 0) & (first.slots[:, 1:] > 0)).any()


def test_empty_patches_far_from_letters_are_paper(faces: tuple[Face, ...]) -> None:
    """Where nothing is asked and nothing near, nothing is drawn; where something is asked, something is."""
    look = GlyphLook(SIDE, PATCH, 3, (9.0, 14.0), (faces,), alphabet(SCRIPTS))
    for seed in range(30):
        page = draw_glyph_page(np.random.default_rng(seed), look, "train")
        asked = page.slots[:, 0].reshape(SIDE // PATCH, -1) > 0
        tile = page.tile.astype(int)
        patches = tile.reshape(3, SIDE // PATCH, PATCH, -1, PATCH).transpose(1, 3, 0, 2, 4).reshape(*asked.shape, -1)
        contrast = np.ptp(patches, axis=2)
        if contrast[~asked].min() > 12:
            continue  # noise over the whole page
        assert np.median(contrast[asked]) > 60
        assert (contrast[asked] > 15).mean() > 0.97


def test_texts_belong_to_their_split() -> None:
    rng = np.random.default_rng(0)
    words = {draw_text(rng, "train", ("latin",)) for _ in range(500)} & {
        draw_text(rng, "heldout", ("latin",)) for _ in range(500)
    }
    # Only characters in no order may meet by chance, and they are short.
    assert all(len(word) <= 2 for word in words)
    assert any(is_held_out(draw_text(rng, "heldout", ("latin",)).lower()) for _ in range(20))
