"""What a family of tasks draws and asks: a picture, and questions with exactly one right answer each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from stages.device.imaging.geometry import Size

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")


@dataclass(frozen=True)
class Look:
    """How pictures look.

    Attributes:
        size: of the picture in pixels.
        least, most: share of the picture's area that the box around a single shape covers.
        backgrounds: textures to choose from.
        saturation: most saturated a background may be, 0…1.
        nameless_colours: share of training pictures whose shape has a colour without a name.
        nameless_shapes: share of training pictures whose shape has a named colour, but no name itself.
    """

    size: Size
    least: float
    most: float
    backgrounds: tuple[str, ...]
    saturation: float
    nameless_colours: float
    nameless_shapes: float


@dataclass(frozen=True)
class Exchange:
    """A question about a scene and its answer."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """A picture and what can be asked about it.

    Attributes:
        picture: RGB.
        exchanges: at most one per task; a task whose answer would be debatable here is missing.
        texts: everything written in the picture.
        pair: colour and shape of what is drawn, where that is held out.
    """

    picture: Image.Image
    exchanges: tuple[Exchange, ...]
    texts: tuple[str, ...] = ()
    pair: tuple[str, str] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


Draw = Callable[[np.random.Generator, Split, Look], Scene]


@dataclass(frozen=True)
class Family:
    """Tasks that ask about the same kind of picture."""

    tasks: tuple[str, ...]
    draw: Draw


def word_question(rng: np.random.Generator, wordings: tuple[str, ...], **words: str) -> str:
    """One of the wordings, its `{names}` filled in."""
    return wordings[rng.integers(len(wordings))].format(**words)
