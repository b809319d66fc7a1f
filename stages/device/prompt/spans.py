"""Segments of a rendered prompt: what is tokenized on its own, and which of it the assistant said.

A prompt is cut at every mark. So the text before an answer gives the same tokens whether the answer follows (training)
or is about to be written (chat), and the ids of a conversation so far are a prefix of the ids of its continuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stages.device.prompt.marks import ANSWER_END, ANSWER_START, BREAK, without_marks

_MARK = re.compile(f"([{BREAK}{ANSWER_START}{ANSWER_END}])")


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt: its text, and whether it belongs to an answer."""

    text: str
    is_answer: bool


def segments(rendered: str, control_tokens: Iterable[str] = ()) -> list[Segment]:
    """Cuts a rendered prompt at its marks.

    An answer includes the token that closes it: when a template's answer ends just before a control token, that token
    is moved into it, since a model must learn to stop.
    """
    rendered = _close_answers(rendered, control_tokens)
    found: list[Segment] = []
    answering = False
    for piece in _MARK.split(rendered):
        if piece in (ANSWER_START, ANSWER_END):
            answering = piece == ANSWER_START
        elif piece and piece != BREAK:
            found.append(Segment(piece, answering))
    return found


def answer_spans(rendered: str, control_tokens: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Character spans (start, end) of the answers in the prompt without marks."""
    spans: list[tuple[int, int]] = []
    position = 0
    answering = False
    for piece in _MARK.split(_close_answers(rendered, control_tokens)):
        if piece in (ANSWER_START, ANSWER_END):
            if answering := piece == ANSWER_START:
                spans.append((position, position))
        else:
            position += len(without_marks(piece))
            if answering:
                spans[-1] = (spans[-1][0], position)
    return spans


def _close_answers(rendered: str, control_tokens: Iterable[str]) -> str:
    closers = "|".join(re.escape(token) for token in sorted(control_tokens, key=len, reverse=True) if token)
    if not closers:
        return rendered
    already = f"(?<!{BREAK})(?:{closers}){ANSWER_END}"
    pieces = re.split(f"({already})", rendered)
    # Odd pieces already end with their closing token; the others may have it just behind the mark.
    return "".join(
        piece if index % 2 else re.sub(f"{ANSWER_END}({closers})", rf"\1{ANSWER_END}", piece)
        for index, piece in enumerate(pieces)
    )
