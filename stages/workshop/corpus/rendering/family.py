"""A family of tasks: what draws the pictures that they ask about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.scene import Look, Scene, Split

Draw = Callable[[np.random.Generator, Split, Look], Scene | Page]


@dataclass(frozen=True)
class Family:
    """Tasks that ask about the same kind of picture.

    `draw` may raise `page.PageOverflowError` where its content does not fit the look's size: it is asked again.

    Attributes:
        tasks: names of what it asks.
        draw: makes a scene, or a page that is then typeset.
        layouts: names of its layouts, which a recipe may hold out.
    """

    tasks: tuple[str, ...]
    draw: Draw
    layouts: tuple[str, ...] = ()
