"""What stands on a page as plain text, for a language model that learns to answer before it sees any picture."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.scene import Exchange
from stages.workshop.corpus.row import Row, Turn

# The texts of a page's markup, in the order in which they are set: `text("…")`, with or without a look before them.
_SET = re.compile(r'\btext\((?:[\w-]+: (?:rgb\("[^"]*"\)|"[^"]*"|[^"(),]+), )*"((?:[^"\\]|\\.)*)"\)')
_ESCAPED = re.compile(r"\\(.)")


def words_on(page: Page) -> tuple[str, ...]:
    """Everything written on a page, piece by piece, as its markup sets it."""
    pieces = (_ESCAPED.sub(_plain, piece) for piece in _SET.findall(page.body))
    return tuple(piece for piece in pieces if piece.strip())


def rows_of_text(name: str, page: Page, split: str, exchanges: Sequence[Exchange], turns: int) -> list[Row]:
    """The rows of a page that is told, not shown: in training one with at most so many questions, held-out one each."""
    told = "\n".join(words_on(page))
    if split == "train":
        asked = exchanges[:turns]
        return [Row(name, _turns(told, asked), (), tasks=tuple(exchange.task for exchange in asked))]
    return [
        Row(f"{name}-{exchange.task}", _turns(told, [exchange]), (), tasks=(exchange.task,))
        for exchange in sorted(exchanges, key=lambda exchange: exchange.task)
    ]


def _turns(told: str, exchanges: Sequence[Exchange]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for index, exchange in enumerate(exchanges):
        turns.append(Turn("user", f"{told}\n{exchange.question}" if index == 0 else exchange.question))
        turns.append(Turn("assistant", exchange.answer))
    return tuple(turns)


def _plain(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
