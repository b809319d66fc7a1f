"""What a family of tasks draws and asks: a picture, and questions with exactly one right answer each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.fonts import TYPST_FONTS, FontShelf
from stages.workshop.corpus.rendering.split import SPLITS, Split

# The answer to every question about something that is not there.
NOT_THERE = "not in the picture"

__all__ = ["NOT_THERE", "SPLITS", "Exchange", "Look", "Scene", "Split", "not_there", "word_question"]


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
        heights: least and greatest height of printed text, in pixels.
        fonts: what pages are printed with.
        heldout_layouts: layouts that training never shows, "family/layout".
        families: names of all families that are drawn; all there are where empty.
    """

    size: Size
    least: float
    most: float
    backgrounds: tuple[str, ...]
    saturation: float
    nameless_colours: float
    nameless_shapes: float
    heights: tuple[float, float] = (10.0, 40.0)
    fonts: FontShelf = TYPST_FONTS
    heldout_layouts: frozenset[str] = frozenset()
    families: tuple[str, ...] = ()

    def draw_height(self, rng: np.random.Generator, most: float | None = None) -> float:
        """A height of text in pixels, small ones as often as large ones; at most `most`, but never below the least."""
        low, high = self.heights
        high = max(low, high if most is None else min(high, most))
        return float(low * (high / low) ** rng.random())

    def draw_font(self, rng: np.random.Generator, split: Split, script: str = "latin") -> str:
        """The name of a font of this split that covers a script."""
        names = self.fonts.names(split, script)
        return names[rng.integers(len(names))]

    def draw_layout(self, rng: np.random.Generator, split: Split, family: str, layouts: tuple[str, ...]) -> str:
        """One of a family's layouts; held-out pages use those that the recipe holds out, where it names any."""
        held = tuple(layout for layout in layouts if f"{family}/{layout}" in self.heldout_layouts)
        shown = tuple(layout for layout in layouts if layout not in held)
        names = (held or layouts) if split == "heldout" else shown
        return names[rng.integers(len(names))]


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
        texts: everything written in the picture that belongs to one split.
        pair: colour and shape of what is drawn, where that is held out.
        facts: what tests want to know.
    """

    picture: Image.Image
    exchanges: tuple[Exchange, ...]
    texts: tuple[str, ...] = ()
    pair: tuple[str, str] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def word_question(rng: np.random.Generator, wordings: tuple[str, ...], **words: str) -> str:
    """One of the wordings, its `{names}` filled in."""
    return wordings[rng.integers(len(wordings))].format(**words)


def not_there(question: str) -> Exchange:
    """A question about something that is not in the picture; family "absent" asks it."""
    return Exchange("absent", question, NOT_THERE)
