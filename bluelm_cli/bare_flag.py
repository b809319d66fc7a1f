"""Flags that work with a number and without one: `--alpha 0.2`, and `--alpha` for its usual value.

typer's own click rejects options with an optional value, so the usual value is put in before the words are parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperCommand


def fill_bare_flags(words: Sequence[str], usual: Mapping[str, str]) -> list[str]:
    """Puts a flag's usual value behind it where the next word is no number.

    Words behind `--` are arguments and stay as they are; `--alpha=0.2` carries its value already.
    """
    filled: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return [*filled, *words[index:]]
        filled.append(word)
        following = words[index + 1] if index + 1 < len(words) else ""
        if word in usual and not _is_number(following):
            filled.append(usual[word])
    return filled


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class BareAlphaCommand(TyperCommand):
    """A command whose `--alpha` alone means the paper's 0.1."""

    usual: ClassVar[Mapping[str, str]] = {"--alpha": "0.1"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, fill_bare_flags(args, self.usual))
