"""Texts that end an answer, cut from it: held back while they may be coming, dropped when they came.

Source of the behaviour: the parameter `stop` of OpenAI's API; the answer ends before the earliest of the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stages.device.runtime.generator import Generation, Token


class StopTexts:
    """Watches a stream of text for the first of some texts.

    Args:
        texts: what ends the stream; none of them empty.

    Attributes:
        found: one of them came.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if not all(texts):
            raise ValueError("an empty text would end every answer before it begins")
        self._texts = tuple(texts)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Adds a piece; what of the stream is sure to lie before any of the texts."""
        whole = self._held + piece
        starts = [start for text in self._texts if (start := whole.find(text)) >= 0]
        if starts:
            self.found, self._held = True, ""
            return whole[: min(starts)]
        sure = len(whole) - max((_begun(whole, text) for text in self._texts), default=0)
        self._held = whole[sure:]
        return whole[:sure]

    def flush(self) -> str:
        """What is still held back when no more comes."""
        rest, self._held = self._held, ""
        return rest


def until_stop_text(tokens: Iterator[Token], texts: Sequence[str], state: Generation) -> Iterator[Token]:
    """The tokens up to the first of some texts; their texts are what lies before it.

    Args:
        tokens: a running generation.
        texts: what ends it.
        state: that generation's; its text and reason are put right.
    """
    if not texts:
        yield from tokens
        return
    stop, said = StopTexts(texts), ""
    last: Token | None = None
    for last in tokens:
        shown = stop.push(last.text)
        said += shown
        yield Token(last.id, shown)
        if stop.found:
            state.reason = "stop"
            break
    if last is not None and (rest := stop.flush()):
        said += rest
        yield Token(last.id, rest)
    state.text = said


def _begun(whole: str, text: str) -> int:
    """How many letters at the end of `whole` are the beginning of `text`."""
    for length in range(min(len(text) - 1, len(whole)), 0, -1):
        if whole.endswith(text[:length]):
            return length
    return 0
