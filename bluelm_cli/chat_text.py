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


def shown(path: Path | str) -> str:
    """A file's name in one line; what cannot be shown is �."""
    return "".join(letter if _is_harmless(letter) else "\ufffd" for letter in str(path))


def _is_harmless(letter: str) -> bool:
    return letter in _JOINERS or unicodedata.category(letter) not in _HARMFUL
