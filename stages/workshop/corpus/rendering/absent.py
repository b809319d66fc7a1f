"""Questions about something that is not there, on the same pages that the other families draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.scene import Look, Split


def absent_family(families: Mapping[str, Family]) -> Family:
    """A family that takes its pages from others, and asks for what those pages do not hold."""
    # Those without layouts draw no pages.
    drawers = tuple(family.draw for family in families.values() if family.layouts)

    def draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
        drawn = drawers[rng.integers(len(drawers))](rng, split, look)
        if not isinstance(drawn, Page) or not drawn.absent:
            raise PageOverflowError
        return replace(drawn, exchanges=(drawn.absent[rng.integers(len(drawn.absent))],))

    return Family(("absent",), draw)
