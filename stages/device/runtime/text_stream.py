"""Tokens to text as they come, never half a character.

Byte-level tokens may end inside a UTF-8 character; a decoder then shows U+FFFD at the end. Such an end is held back
until the character is whole. The window that is decoded again starts at the last clean boundary but one, so that
decoders which treat the first token apart (Metaspace) see the same neighbours as in the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


class TextStream:
    """Turns token ids into pieces of text whose concatenation is the decoded whole.

    Args:
        decode: ids to text, skipping special tokens (tokenizers' `Tokenizer.decode`).
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        self._boundary = 0
        self._shown = 0

    def push(self, token: int) -> str:
        """Adds a token; the text it completes, which may be empty."""
        self._ids.append(token)
        window = self._decode(self._ids[self._start :])
        stable = window.rstrip(_REPLACEMENT)
        piece = stable[self._shown :]
        self._shown = max(self._shown, len(stable))
        if len(stable) == len(window) and piece:
            self._start, self._boundary = self._boundary, len(self._ids)
            self._shown = len(self._decode(self._ids[self._start :]))
        return piece

    def flush(self) -> str:
        """What is still held back when no more tokens come."""
        piece = self._decode(self._ids[self._start :])[self._shown :]
        self._shown += len(piece)
        return piece
