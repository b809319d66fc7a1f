"""A conversation about pictures, wherever it was read from, and what stands in its place where it is broken.

    from stages.workshop.corpus.readers.opening import open_rows

    for row in open_rows(path):           # every format, one row at a time
        if isinstance(row, BadRow):
            problems += row.errors()      # or drop it, and say so
        else:
            row.turns, row.pictures, row.tasks, row.messages()

Rows are equal where what they say is equal; the place they come from does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.llava_rows import IMAGE_MARK, Problem
from stages.workshop.corpus.picture import Picture

__all__ = ["IMAGE_MARK", "BadRow", "Place", "Problem", "Row", "Turn", "printable"]

_LONGEST_NAME = 80


@dataclass(frozen=True)
class Place:
    """Where a row stands: its file and its number there (rows and samples from 0, lines from 1)."""

    file: Path
    number: int
    unit: str = "row"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


NOWHERE = Place(Path(), 0)


@dataclass(frozen=True)
class Turn:
    """What one side says: role "user", "assistant" or "system"; the text holds `<image>` where a picture stands."""

    role: str
    text: str


@dataclass(frozen=True)
class Row:
    """One conversation.

    Attributes:
        name: the row's id, or its place in the file where it has none.
        turns: who says what.
        pictures: its pictures, in the order of their marks.
        tasks: kinds of question, one for each answer; empty where the file does not say.
        place: where it was read.
        repeat: the number of this copy, where a mixture holds the row several times on purpose.
    """

    name: str
    turns: tuple[Turn, ...]
    pictures: tuple[Picture, ...] = ()
    tasks: tuple[str, ...] = ()
    place: Place = field(default=NOWHERE, compare=False)
    repeat: int = field(default=1, compare=False)

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as transformers takes it (see `stages.device.prompt.messages`)."""
        return [{"role": turn.role, "content": list(_parts(turn.text))} for turn in self.turns]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and everything that is wrong with it."""

    place: Place
    problems: tuple[Problem, ...]
    name: str | None = None

    def errors(self) -> list[DataError]:
        """One error for each problem."""
        which = str(self.place) if self.name is None else f"{self.place} (id {printable(self.name)})"
        return [
            DataError(
                f"{which}: {printable(problem.text, None)}.",
                "The row cannot be learned from or asked.",
                "Mend the row, or leave it out: bluelm data check writes a corpus without such rows.",
            )
            for problem in self.problems
        ]


def printable(text: str, longest: int | None = _LONGEST_NAME) -> str:
    """A text from outside for a terminal: control characters escaped, shortened to `longest` characters."""
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def _parts(text: str) -> Iterator[dict[str, str]]:
    """A turn's text as parts: pictures and the text between them, line breaks beside a picture dropped."""
    pieces = text.split(IMAGE_MARK)
    for index, piece in enumerate(pieces):
        if index:
            yield {"type": "image"}
        kept = piece.strip("\n") if len(pieces) > 1 else piece
        if kept.strip() or len(pieces) == 1:
            yield {"type": "text", "text": kept}
