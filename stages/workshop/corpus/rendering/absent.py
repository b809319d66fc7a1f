"""Questions about something that is not there, on the same pages that the other families draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.scene import Look, Split


def absent_family(families: Mapping[str, Family]) -> Family:
    """A family that takes its pages from the others that are drawn, and asks for what those pages do not hold."""
    # Those without layouts draw no pages.
    pages = {name: family for name, family in families.items() if family.layouts}

    def draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
        names = [name for name in pages if name in look.families] or list(pages)
        drawn = pages[names[rng.integers(len(names))]].draw(rng, split, look)
        if not isinstance(drawn, Page) or not drawn.absent:
            raise PageOverflowError
        return replace(drawn, exchanges=(drawn.absent[rng.integers(len(drawn.absent))],))

    return Family(("absent",), draw)
