"""Squares full of printed text, and which characters stand in which patch: what a vision tower learns reading from.

Pages of `page.py` know what they say, not where; here every letter's place is known, so that each patch can be asked
for the characters whose middle stands above, in or below it: those of the line that covers the patch's own middle. So
nobody has to tell the exact middle of a line, which no reader can. Lines run over the edges, as they do in the tiles of
a large picture.

Axes: S side of the square, P patches a side, K most characters a patch is asked for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from stages.workshop.corpus.rendering.faces import Face
from stages.workshop.corpus.rendering.glyph_text import draw_text
from stages.workshop.corpus.rendering.page import draw_paper
from stages.workshop.corpus.rendering.split import Split

# Drawn so much larger and then made smaller: letters land between pixels, as typst's do, not on FreeType's grid.
_FINER = 2
# Where letters reach to, above and below their baseline, and their middle, in heights of the face.
_ABOVE, _BELOW, _MIDDLE = 0.72, 0.12, 0.3
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_SAME_FACE, _USUAL, _WIDE_GAP, _BLURRED, _NOISY, _ALONE = 0.6, 0.6, 0.1, 0.1, 0.1, 0.06
_FONTS_KEPT = 1024
# Advances of letters are measured once, at this height of the face, in pixels.
_MEASURED_AT = 200


@dataclass(frozen=True)
class GlyphPage:
    """A page and its reading.

    Attributes:
        tile: uint8 [3, S, S].
        slots: [P·P, K]: places in the alphabet, counted from 1, of the characters over each patch from left to right; 0
            where there is none (any more).
    """

    tile: NDArray[np.uint8]
    slots: NDArray[np.int64]


@dataclass(frozen=True)
class GlyphLook:
    """How glyph pages look.

    Attributes:
        side: S, in pixels.
        patch: side of a patch, in pixels.
        slots: K.
        heights: least and greatest height of a face (its em), in pixels.
        families: what text is set in, the usual face of each first.
        alphabet: all characters that are asked for; others are drawn, and not asked for.
    """

    side: int
    patch: int
    slots: int
    heights: tuple[float, float]
    families: tuple[tuple[Face, ...], ...]
    alphabet: tuple[str, ...]


def draw_glyph_page(rng: np.random.Generator, look: GlyphLook, split: Split) -> GlyphPage:
    """A page of lines in some face: all in one size, or each in its own; sometimes one text alone."""
    paper, ink = draw_paper(rng)
    big = look.side * _FINER
    canvas = Image.new("RGB", (big, big), paper)
    slots = np.zeros((look.side // look.patch, look.side // look.patch, look.slots), dtype=np.int64)  # [P, P, K]
    pen = Pen(ImageDraw.Draw(canvas), slots, look, ink)
    usual, face = _draw_height(rng, look), _draw_face(rng, look)
    same = rng.random() < _SAME_FACE
    if rng.random() < _ALONE:
        height = usual * 1.3
        across, down = rng.uniform(0, 0.5) * look.side, rng.uniform(0.2, 0.95) * look.side
        pen.write(draw_text(rng, split, face.scripts), face, height, across, down)
    else:
        _fill(rng, pen, look, split, (face, usual, same))
    picture = canvas.resize((look.side, look.side), _FILTERS[rng.integers(len(_FILTERS))])
    if rng.random() < _BLURRED:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    pixels = np.asarray(picture, dtype=np.int16)  # [S, S, 3]
    if rng.random() < _NOISY:
        pixels = pixels + rng.normal(0, rng.uniform(2, 12), pixels.shape).astype(np.int16)
    tile = np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8).transpose(2, 0, 1))  # [3, S, S]
    return GlyphPage(tile, slots.reshape(-1, look.slots))  # [P·P, K]


def _fill(rng: np.random.Generator, pen: Pen, look: GlyphLook, split: Split, style: tuple[Face, float, bool]) -> None:
    """Lines from above the top to below the bottom, each longer than there is room for on one or both sides."""
    face, usual, same = style
    down = float(rng.uniform(-0.5, 1.0)) * usual
    pitch = rng.uniform(1.05, 1.6)
    while down < look.side + usual:
        height = usual if same else _draw_height(rng, look)
        used = face if same else _draw_face(rng, look)
        down += height * pitch
        across = float(rng.uniform(-0.4, 0.4)) * look.side
        while across < look.side:
            across = pen.write(draw_text(rng, split, used.scripts), used, height, across, down)
            across += height * (rng.uniform(1, 5) if rng.random() < _WIDE_GAP else rng.uniform(0.2, 0.35))


def _draw_height(rng: np.random.Generator, look: GlyphLook) -> float:
    low, high = look.heights
    return float(low * (high / low) ** (rng.random() ** 1.5))


def _draw_face(rng: np.random.Generator, look: GlyphLook) -> Face:
    """Every family is as likely as any other, whether it has two faces or twenty."""
    family = look.families[rng.integers(len(look.families))]
    return family[0] if rng.random() < _USUAL else family[rng.integers(len(family))]


class Pen:
    """Writes on the large canvas and notes what stands where on the small one."""

    def __init__(self, draw: ImageDraw.ImageDraw, slots: NDArray[np.int64], look: GlyphLook, ink: str) -> None:
        self._draw, self._slots, self._look, self._ink = draw, slots, look, ink
        self._numbers = _numbers(look.alphabet)

    def write(self, text: str, face: Face, height: float, across: float, down: float) -> float:
        """Writes a text from `across` on the baseline `down`, in pixels of the page; returns where it ends."""
        font = _font(face.path, face.index, round(height * _FINER, 1))
        ends = _ends(text, face, font.getlength(text) / _FINER)  # [letters + 1]
        if across + ends[-1] > 0:
            self._draw.text((across * _FINER, down * _FINER), text, font=font, fill=self._ink, anchor="ls")
            rows = self._rows(height, down)
            for place, letter in enumerate(text):
                self._note(letter, rows, across + (ends[place] + ends[place + 1]) / 2)
        return across + float(ends[-1])

    def _rows(self, height: float, down: float) -> list[int]:
        """Rows of patches whose middle a line covers; the nearest one where it is lower than that."""
        patch = self._look.patch
        top, bottom = down - _ABOVE * height, down + _BELOW * height
        covered = [row for row in range(len(self._slots)) if top < (row + 0.5) * patch < bottom]
        middle = int((down - _MIDDLE * height) // patch)
        return covered or [row for row in (middle,) if 0 <= row < len(self._slots)]

    def _note(self, letter: str, rows: list[int], middle: float) -> None:
        col = int(middle // self._look.patch)
        if not 0 <= col < len(self._slots) or letter not in self._numbers:
            return
        for row in rows:
            slot = self._slots[row, col]  # [K]
            free = np.flatnonzero(slot == 0)
            if len(free):
                slot[free[0]] = self._numbers[letter]


@functools.cache
def _numbers(alphabet: tuple[str, ...]) -> dict[str, int]:
    return {letter: place for place, letter in enumerate(alphabet, start=1)}


def _ends(text: str, face: Face, length: float) -> NDArray[np.float64]:
    """Where each letter of a text ends [letters + 1], from 0 to its length: advances, stretched for kerning."""
    ends = np.concatenate([[0.0], np.cumsum([_advance(face.path, face.index, letter) for letter in text])])
    return ends * (length / max(ends[-1], 1e-6))


@functools.lru_cache(maxsize=1 << 18)
def _advance(path: str, index: int, letter: str) -> float:
    return _font(path, index, _MEASURED_AT).getlength(letter)


@functools.lru_cache(maxsize=_FONTS_KEPT)
def _font(path: str, index: int, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)
