"""What stands on a page as plain text, for a language model that learns to answer before it sees any picture."""

from __future__ import annotations

import re

from stages.workshop.corpus.rendering.page import Page

# The texts of a page's markup, in the order in which they are set: `text("…")`, with or without a look before them.
_SET = re.compile(r'\btext\((?:[\w-]+: (?:rgb\("[^"]*"\)|"[^"]*"|[^"(),]+), )*"((?:[^"\\]|\\.)*)"\)')
_ESCAPED = re.compile(r"\\(.)")


def words_on(page: Page) -> tuple[str, ...]:
    """Everything written on a page, piece by piece, as its markup sets it."""
    pieces = (_ESCAPED.sub(_plain, piece) for piece in _SET.findall(page.body))
    return tuple(piece for piece in pieces if piece.strip())


def _plain(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
