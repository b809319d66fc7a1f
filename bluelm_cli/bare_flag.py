"""Flags that work with a value and without one: `--alpha 0.2`, and `--alpha` for its usual value.

typer's own click rejects options with an optional value, so the usual value is put in before the words are parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from typer.core import TyperCommand

# What `--listen` alone stands for.
MICROPHONE = "microphone"


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def fill_bare_flags(
    words: Sequence[str], usual: Mapping[str, str], is_value: Callable[[str], bool] = is_number
) -> list[str]:
    """Puts a flag's usual value behind it where the next word is none of its values.

    Words behind `--` are arguments and stay as they are; `--alpha=0.2` carries its value already.
    """
    filled: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return [*filled, *words[index:]]
        filled.append(word)
        following = words[index + 1] if index + 1 < len(words) else ""
        if word in usual and not is_value(following):
            filled.append(usual[word])
    return filled


class BareAlphaCommand(TyperCommand):
    """A command whose `--alpha` alone means the paper's 0.1."""

    usual: ClassVar[Mapping[str, str]] = {"--alpha": "0.1"}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, fill_bare_flags(args, self.usual))


class BareListenCommand(TyperCommand):
    """A command whose `--listen` alone means the microphone; a wav file, or any file that is there, is its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, fill_bare_flags(args, {"--listen": MICROPHONE}, _is_recording))


def _is_recording(word: str) -> bool:
    return word == MICROPHONE or Path(word).suffix.lower() == ".wav" or (word != "" and Path(word).is_file())
