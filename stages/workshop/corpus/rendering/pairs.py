"""Which colour-shape pairs are held out: one per colour, so that every colour and every shape is still learned."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.outlines import SHAPES
from stages.workshop.corpus.rendering.palette import COLOURS
from stages.workshop.corpus.rendering.scene import Split

Pair = tuple[str, str]

HELD_OUT: tuple[Pair, ...] = tuple((colour, SHAPES[(index + 1) % len(SHAPES)]) for index, colour in enumerate(COLOURS))
TRAINED: tuple[Pair, ...] = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT)


def draw_pair(rng: np.random.Generator, split: Split) -> Pair:
    """A colour and a shape that belong to this split."""
    pairs = TRAINED if split == "train" else HELD_OUT
    return pairs[rng.integers(len(pairs))]
