"""Text as it is said: marks of Markdown taken away, code named instead of read."""

from __future__ import annotations

import re

CODE = "Some code is on the screen."
_FENCE = re.compile(r"\A\s*```")
_RULE = re.compile(r"\A[\s|:*_=-]+\Z")
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ADDRESS = re.compile(r"\bhttps?://(?:www\.)?([^\s/)>]+)[^\s)>]*")
_HEADING = re.compile(r"\A\s*(#{1,6}\s+|>\s*|[-*+•]\s+)+")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)")
_MARKS = re.compile(r"[`*#]+|(?<!\w)_+|_+(?!\w)")
_CELL = re.compile(r"\s*\|\s*")


def spoken(text: str) -> str:
    """A sentence of an answer as it is said; empty where there is nothing to say."""
    if _FENCE.match(text):
        return CODE
    if _RULE.match(text):
        return ""
    said = _LINK.sub(r"\1", _PICTURE.sub(r"\1", text))
    said = _ADDRESS.sub(r"\1", said)
    said = _HEADING.sub("", said)
    said = _EMPHASIS.sub(r"\2", said)
    said = _CELL.sub(", ", said.strip().strip("|")) if "|" in said else said
    said = _MARKS.sub("", said)
    said = "".join(letter if letter.isprintable() else " " for letter in said)
    said = " ".join(said.split())
    return said if any(letter.isalnum() for letter in said) else ""
