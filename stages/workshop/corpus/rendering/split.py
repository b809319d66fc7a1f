"""The two splits, and which texts are held out: decided by the text itself, so it never changes."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")

# Every fifth text, by its digest.
_PARTS = 5


def is_held_out(text: str) -> bool:
    """Whether a text may stand in held-out pictures only."""
    return hashlib.sha256(text.encode()).digest()[0] % _PARTS == 0


def belongs(text: str, split: Split) -> bool:
    """Whether a text may stand in pictures of this split."""
    return is_held_out(text) == (split == "heldout")
