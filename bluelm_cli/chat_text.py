"""Text that others wrote, made harmless for a terminal: answers, names of files, messages that quote them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

# Joiners shape letters of Persian and Indic scripts, and emoji; they move nothing.
_JOINERS = "\u200c\u200d"
# Controls and escape sequences, invisible formatting (it can turn the order of letters around), halves of characters.
_HARMFUL = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def printable(text: str) -> str:
    """Text without control characters: an answer must not steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or _is_harmless(letter))


def escaped(json_text: str) -> str:
    """JSON in which harmful characters, which stand only in strings, are written as escapes: the same value."""
    return "".join(
        letter if letter == "\n" or _is_harmless(letter) or unicodedata.category(letter) == "Cs" else _escape(letter)
        for letter in json_text
    )


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def shown(path: Path | str) -> str:
    """A file's name in one line; what cannot be shown is �."""
    return "".join(letter if _is_harmless(letter) else "\ufffd" for letter in str(path))


def _is_harmless(letter: str) -> bool:
    return letter in _JOINERS or unicodedata.category(letter) not in _HARMFUL
