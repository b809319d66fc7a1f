"""Scripts that pages are written in, and the characters that a font must have to print them."""

from __future__ import annotations

import functools
import string

from stages.workshop.corpus.rendering.languages import LANGUAGES

# What English pages need: printable ASCII, and signs of their prices, lists and checks.
_LATIN = string.ascii_letters + string.digits + string.punctuation + "€£•"
SCRIPTS = ("latin", *dict.fromkeys(language.script for language in LANGUAGES.values()))


@functools.cache
def characters_of(script: str) -> frozenset[int]:
    """Code points that a font needs to print whatever we write in a script."""
    texts = [
        text
        for language in LANGUAGES.values()
        if language.script == script
        for text in (*language.words, *language.sentences, language.comma)
    ]
    both = "".join(texts) if texts else _LATIN
    capitals = both.upper() if script in ("latin-extended", "cyrillic", "greek") else ""
    return frozenset(map(ord, both + capitals)) - {ord(" ")}
