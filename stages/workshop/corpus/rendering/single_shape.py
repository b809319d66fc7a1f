"""One coloured shape somewhere in a picture: which colour, which shape, where.

Held-out pairs leave a trace in training: a colour tells which shapes it never has, a shape which colours. A small model
learns that long before it learns outlines, and then does worse than chance at held-out pairs (6 % right, measured). So
part of the training pictures have a colour without a name and are asked for their shape, part have a shape without a
name and are asked for their colour; the others are asked for their colour alone.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from stages.device.imaging.geometry import Box, Size
from stages.workshop.corpus.rendering.backgrounds import Texture, background, grain
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.outlines import NAMELESS_SHAPES, SHAPES, cover
from stages.workshop.corpus.rendering.pairs import draw_pair
from stages.workshop.corpus.rendering.palette import draw_colour, draw_nameless
from stages.workshop.corpus.rendering.scene import Exchange, Look, Scene, Split, word_question

COLOUR_QUESTIONS = (
    "What colour is the shape?",
    "What color is the shape?",
    "Which colour does the shape have?",
    "What colour is it?",
    "Name the colour of the shape.",
)
SHAPE_QUESTIONS = (
    "Which shape is it?",
    "What shape is it?",
    "What shape is in the picture?",
    "Which shape do you see?",
    "Name the shape.",
)
PLACE_QUESTIONS = (
    "Where is the shape?",
    "In which corner of the picture is the shape?",
)
# A centre this near to the middle line, in parts of the picture, belongs to neither side.
_BETWEEN = 0.04
_GRAIN = 8.0


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Scene:
    colour, shape = draw_pair(rng, split)
    named_colour, named_shape = _named(rng, split, look)
    if not named_colour:
        shape = SHAPES[rng.integers(len(SHAPES))]
    if not named_shape:
        shape = NAMELESS_SHAPES[rng.integers(len(NAMELESS_SHAPES))]
    box = _draw_box(rng, look)
    rgb = draw_colour(rng, colour) if named_colour else draw_nameless(rng)
    behind = background(rng, look.size, look.backgrounds, look.saturation, rgb)
    picture = paint(rng, behind, cover(shape, box, look.size), rgb)
    exchanges = []
    if named_colour:
        exchanges.append(Exchange("colour", word_question(rng, COLOUR_QUESTIONS), colour))
    if named_shape and not (named_colour and split == "train" and look.nameless_colours):
        exchanges.append(Exchange("shape", word_question(rng, SHAPE_QUESTIONS), shape))
    where = place(box, look.size)
    question = word_question(rng, PLACE_QUESTIONS)
    if where is not None:
        exchanges.append(Exchange("place", question, where))
    pair = (colour, shape) if named_colour and named_shape else None
    return Scene(as_image(picture), tuple(exchanges), pair=pair, facts={"box": box, "shape": shape})


def _named(rng: np.random.Generator, split: Split, look: Look) -> tuple[bool, bool]:
    """Whether the colour and the shape have names; in training one of the two may have none."""
    chance = rng.random()
    if split == "heldout" or chance >= look.nameless_colours + look.nameless_shapes:
        return True, True
    return (False, True) if chance < look.nameless_colours else (True, False)


def _draw_box(rng: np.random.Generator, look: Look) -> Box:
    """A square box of a random share of the picture's area at a random place inside it."""
    width, height = look.size
    share = rng.uniform(look.least, look.most)
    # Long pictures cannot hold a square of that area: there the box is as high (or wide) as the picture allows.
    side = max(1, min(round((share * width * height) ** 0.5), width, height))
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return Box(left, top, left + side, top + side)


def place(box: Box, picture: Size) -> str | None:
    """The corner a box lies in, such as "top left"; None where its centre is too near to a middle line."""
    across = (box.left + box.right) / 2 / picture.width - 0.5
    down = (box.top + box.bottom) / 2 / picture.height - 0.5
    if min(abs(across), abs(down)) < _BETWEEN:
        return None
    return f"{'top' if down < 0 else 'bottom'} {'left' if across < 0 else 'right'}"


def paint(rng: np.random.Generator, behind: Texture, covered: Texture, rgb: Texture) -> Texture:
    """Lays a colour with a little grain over a background, as far as each pixel is covered: [H, W, 3]."""
    front = grain(rng, np.broadcast_to(rgb, behind.shape), _GRAIN)
    return behind + (front - behind) * covered[..., None]


def as_image(picture: Texture) -> Image.Image:
    """Levels as an RGB picture."""
    return Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))


SINGLE_SHAPE = Family(("colour", "shape", "place"), _draw)
