"""Invisible marks in a rendered prompt: where the tokenizer must not look across, and where answers begin and end.

They are Unicode noncharacters, reserved for use inside a program: text from outside never needs them, so they are
dropped from it, and nothing a user types can forge one.

Why breaks: `<image>` or `<|im_start|>` typed by a user is text. A break inside the word makes the tokenizer read it as
letters, while the same word written by the chat template becomes the special token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

BREAK = "\ufdd0"
ANSWER_START = "\ufdd1"
ANSWER_END = "\ufdd2"
_ANY_MARK = re.compile(f"[{BREAK}{ANSWER_START}{ANSWER_END}]")


def without_marks(text: str) -> str:
    """The text without any mark."""
    return _ANY_MARK.sub("", text)


def break_control_tokens(text: str, control_tokens: Iterable[str]) -> str:
    """Puts a break after the first letter of every control token in a text from outside.

    Tokens inside tokens are broken too, so no piece between two breaks holds a control token of two letters or more.
    """
    text = without_marks(text)
    by_length = sorted((token for token in control_tokens if len(token) > 1), key=len, reverse=True)
    if not by_length:
        return text
    pattern = re.compile("|".join(re.escape(token) for token in by_length))
    start = 0
    pieces: list[str] = []
    while (match := pattern.search(text, start)) is not None:
        cut = match.start() + 1
        pieces.append(text[start:cut])
        start = cut
    pieces.append(text[start:])
    return BREAK.join(pieces)
