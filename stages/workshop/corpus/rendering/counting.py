"""Several equal shapes side by side: how many."""

from __future__ import annotations

import numpy as np

from stages.device.imaging.geometry import Box, Size
from stages.workshop.corpus.rendering.backgrounds import background
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.outlines import cover
from stages.workshop.corpus.rendering.pairs import draw_pair
from stages.workshop.corpus.rendering.palette import draw_colour
from stages.workshop.corpus.rendering.scene import Exchange, Look, Scene, Split, word_question
from stages.workshop.corpus.rendering.single_shape import as_image, paint

QUESTIONS = ("How many shapes are there?", "How many {shapes} are in the picture?", "Count the {shapes}.")
MOST = 6
# Shapes stand in cells of a grid of this side, so that they never touch.
_CELLS = 3


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Scene:
    colour, shape = draw_pair(rng, split)
    rgb = draw_colour(rng, colour)
    number = int(rng.integers(1, MOST + 1))
    cells = rng.permutation(_CELLS * _CELLS)[:number]
    picture = background(rng, look.size, look.backgrounds, look.saturation, rgb)
    boxes = [_draw_box(rng, int(cell), look.size) for cell in sorted(cells)]
    for box in boxes:
        picture = paint(rng, picture, cover(shape, box, look.size), rgb)
    question = word_question(rng, QUESTIONS, shapes=plural(shape))
    exchange = Exchange("count", question, str(number))
    return Scene(as_image(picture), (exchange,), pair=(colour, shape), facts={"boxes": boxes})


def _draw_box(rng: np.random.Generator, cell: int, picture: Size) -> Box:
    """A square box inside a cell, one pixel clear of its edges."""
    width, height = picture.width // _CELLS, picture.height // _CELLS
    row, column = divmod(cell, _CELLS)
    inside = max(1, min(width, height) - 2)
    side = max(1, int(inside * rng.uniform(0.65, 1.0)))
    left = column * width + 1 + int(rng.integers(0, width - 2 - side + 1))
    top = row * height + 1 + int(rng.integers(0, height - 2 - side + 1))
    return Box(left, top, left + side, top + side)


def plural(noun: str) -> str:
    """The noun for more than one."""
    return noun + ("es" if noun.endswith("s") else "s")


COUNTING = Family(("count",), _draw)
