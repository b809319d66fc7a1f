"""Sentences cut from a stream of text, so that the first is said while the rest is still being generated.

A sentence ends at . ! ? … or a line's end. It does not end inside a number (3.14), behind an abbreviation (e.g.), an
initial (J. Smith) or a list's number (1. Bread); blocks of code are kept whole, whatever stands in them. What a mark
means is decided by what follows, so the end of the text so far is held back until more comes.
"""

from __future__ import annotations

import re

# A sentence longer than this is cut at its next comma or space: nobody waits for its end.
LONG = 240

_WIDE_END = "。！？"
_CLOSING = "\"')]}”’»*_`"
# Of these the second kind ends a sentence all the same, unless a number or a small letter follows.
_ABBREVIATIONS = frozenset(
    [
        *("mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "cf", "fig", "eq", "sec", "ch", "vol", "pp"),
        *("approx", "al", "u.s", "u.k", "a.m", "p.m", "no", "etc", "inc", "ltd", "co", "jr", "sr"),
    ]
)
_OFTEN_LAST = frozenset(["al", "u.s", "u.k", "a.m", "p.m", "no", "etc", "inc", "ltd", "co", "jr", "sr"])
_LIST_NUMBER = re.compile(r"\s*\d{1,3}\.\Z")
_LAST_WORD = re.compile(r"[^\s(\"'“‘*_]+\Z")
_FENCE = "```"


class SentenceStream:
    """Takes text in pieces of any size and gives back whole sentences; how it is cut into pieces changes nothing."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, piece: str) -> list[str]:
        """Adds text; the sentences it completes. Nothing but white space is lost."""
        self._held += piece
        return self._cut(final=False)

    def flush(self) -> list[str]:
        """What is left when no more text comes."""
        found = self._cut(final=True)
        rest, self._held = self._held.strip(), ""
        return [*found, rest] if rest else found

    def _cut(self, final: bool) -> list[str]:
        found = []
        while (end := _end(self._held, final)) is not None:
            sentence, self._held = self._held[:end].strip(), self._held[end:]
            if sentence:
                found.append(sentence)
        return found


def _end(text: str, final: bool) -> int | None:
    """Where the first sentence ends; None where that cannot be said yet."""
    start = len(text) - len(text.lstrip())
    if text.startswith(_FENCE, start):
        return _fence_end(text, start, final)
    if not final and _FENCE.startswith(text[start : start + 3]):
        return None  # the beginning of a fence, perhaps, or nothing at all
    for place in range(start, len(text)):
        letter = text[place]
        if letter == "\n":
            return place + 1
        if letter in _WIDE_END:
            return _behind_closing(text, place + 1, final)
        if letter in ".!?…":
            end = _mark_end(text, start, place, final)
            if end is None or end > 0:
                return end
        if place - start >= LONG and letter in ",;: ":
            return place + 1
    return None


def _fence_end(text: str, start: int, final: bool) -> int | None:
    close = text.find("\n" + _FENCE, start + len(_FENCE))
    if close < 0:
        return len(text) if final else None
    return close + 1 + len(_FENCE)


def _behind_closing(text: str, place: int, final: bool) -> int | None:
    while place < len(text) and text[place] in _CLOSING:
        place += 1
    return place if place < len(text) or final else None


def _mark_end(text: str, start: int, place: int, final: bool) -> int | None:
    """Where the sentence ends if the mark at `place` ends it; 0 where it goes on, None where more must come first."""
    end = _behind_closing(text, place + 1, final)
    if end is None or (end < len(text) and not text[end].isspace()):
        return None if end is None else 0  # 3.14, www.example.com, ?!
    rest = text[end:]
    following = rest.lstrip(" \t").lstrip("\"'([“‘*_")[:1]
    if not following:
        return end if final else None
    return end if _ends(text[start : place + 1], following) else 0


def _ends(before: str, following: str) -> bool:
    """Whether text that has come to a mark is a whole sentence, seen what follows."""
    if before[-1] in "!?" or following == "\n":
        return True
    if _LIST_NUMBER.match(before):
        return False
    if before[-1] == "…" or before.endswith(".."):
        return not following.islower()
    found = _LAST_WORD.search(before[:-1])
    word = found.group().lower() if found else ""
    if word in _ABBREVIATIONS:
        return word in _OFTEN_LAST and not (following.islower() or following.isdigit())
    initial = len(word) == 1 and word.isalpha() and found is not None and found.group().isupper() and word != "i"
    return not initial
