"""The README's commands, taken from its text: indented blocks and the table of commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_TABLE = re.compile(r"^\| .*\| `(bluelm [^`]+)` \|$")
_COMMAND = re.compile(r"^ {4}(\$ )?(bluelm|make|pip|torchrun|accelerate|recipes/\S+\.sh) \S")


def commands(readme: Path) -> list[str]:
    """Every command in the order of the text, comments and continuations taken away, each once."""
    lines = readme.read_text(encoding="utf-8").splitlines()
    found: list[str] = []
    for number, line in enumerate(lines):
        if match := _TABLE.match(line):
            found.append(match[1])
        elif _COMMAND.match(line):
            found.append(_whole(lines[number:]))
    return list(dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in found))


def _whole(lines: list[str]) -> str:
    """A command that may go on in the next lines."""
    text = lines[0].strip().removeprefix("$ ")
    for line in lines[1:]:
        if not text.endswith("\\"):
            break
        text = text.removesuffix("\\") + line.strip()
    return text
