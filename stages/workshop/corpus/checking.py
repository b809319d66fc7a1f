"""What can be wrong with a row, by kind, and what is found out about one: its texts, its pictures, its length.

Kinds that readers tell: see `stages.artifacts.llava_rows`. Here a row that could be read is looked at closely: its
pictures are decoded by the same code that training uses, its tokens counted as training counts them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling
from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.template import ChatTemplate
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import IMAGE_MARK, BadRow, Problem, Row, Turn

# Kinds of problems and what they mean; all but those in REPORTED cost the row its place.
KINDS: Mapping[str, str] = {
    "json": "no JSON",
    "form": "keys missing or of a wrong type",
    "role": "an unknown speaker",
    "outside": "a picture outside the folder of pictures",
    "shard": "a shard that breaks off",
    "marks": f"{IMAGE_MARK} marks that do not match the pictures",
    "missing-picture": "a picture that does not exist",
    "broken-picture": "a picture that cannot be decoded",
    "empty-turn": "a turn without text",
    "role-order": "turns that are not question and answer in turn",
    "characters": "control characters in a text",
    "too-long": "more tokens than a sequence has",
    "duplicate": "the same pictures and texts as an earlier row",
    "same-pictures": "the same pictures as an earlier row, other texts",
}
REPORTED = ("same-pictures",)
# Neither seen nor said: control characters but tab and line ends, and noncharacters that prompts are marked with.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufdd0-\ufdef\ufffe\uffff]")
# Rows about one picture stand together: it is decoded once.
_REMEMBERED = 1024

# A picture's sha256 and size, or what is wrong with it.
Look = Callable[[Picture], tuple[str, Size] | Problem]


@dataclass(frozen=True)
class Finding:
    """What was found out about a row.

    Attributes:
        problems: all that is wrong with it.
        pictures: sha256 of its pictures in hex, as far as they could be read.
        tokens: its length for a model, image tokens included; None where that was not asked or has no answer.
    """

    problems: tuple[Problem, ...] = ()
    pictures: tuple[str, ...] = ()
    tokens: int | None = None

    def as_line(self) -> str:
        """The finding as a line of JSON."""
        return json.dumps([self.problems, self.pictures, self.tokens]) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Finding:
        """Raises: ValueError, TypeError: it is no finding."""
        problems, pictures, tokens = json.loads(line)
        return cls(tuple(Problem(*problem) for problem in problems), tuple(pictures), tokens)


@dataclass(frozen=True)
class Length:
    """How long a row may be for a model; small enough to be sent to other processes.

    Attributes:
        tokenizer: the model's `tokenizer.json`.
        template: its chat template.
        image_token: what marks a picture in its prompts.
        variables: what the template may ask for, as pairs.
        tiling: how pictures become tiles.
        most: tokens of a sequence.
    """

    tokenizer: Path
    template: str
    image_token: str
    variables: tuple[tuple[str, str], ...]
    tiling: TilingSpec
    most: int

    def tokens(self, row: Row, sizes: list[Size]) -> int:
        """Tokens of a row.

        Args:
            row: the conversation.
            sizes: upright sizes of its pictures.

        Raises:
            UsageError: it is no conversation for this model's template.
        """
        tiles = [plan_tiling(size, self.tiling).tiles * self.tiling.tokens_per_tile for size in sizes]
        encoder = _encoder(self.tokenizer, self.template, self.image_token, self.variables)
        return len(encoder.encode(row.messages(), tiles).ids)


@functools.lru_cache(1)
def _encoder(tokenizer: Path, template: str, image_token: str, variables: tuple[tuple[str, str], ...]) -> PromptEncoder:
    return PromptEncoder(Tokenizer.from_file(str(tokenizer)), ChatTemplate(template), image_token, dict(variables))


def check_row(row: Row | BadRow, length: Length | None, look: Look) -> Finding:
    """Everything that is wrong with one row, without looking at others.

    Args:
        row: the row.
        length: count its tokens for this model.
        look: `remembering()`, the same for rows that stand together.
    """
    if isinstance(row, BadRow):
        return Finding(row.problems)
    problems = list(text_problems(row.turns))
    digests: list[str] = []
    sizes: list[Size] = []
    for picture in row.pictures:
        seen = look(picture)
        if isinstance(seen, Problem):
            problems.append(seen)
        else:
            digests.append(seen[0])
            sizes.append(seen[1])
    tokens = None
    if length is not None and not problems:
        tokens = length.tokens(row, sizes)
        if tokens > length.most:
            problems.append(Problem("too-long", f"it has {tokens:,} tokens, a sequence has {length.most:,}"))
    return Finding(tuple(problems), tuple(digests), tokens)


def remembering() -> Look:
    """Looks at pictures, at each once while others of late are remembered."""
    return functools.lru_cache(_REMEMBERED)(_look)


def _look(picture: Picture) -> tuple[str, Size] | Problem:
    """A picture's digest and size, or what is wrong with it."""
    if not picture.exists():
        return Problem("missing-picture", f"the picture {picture.root / picture.name} does not exist")
    try:
        return picture.digest(), picture.check()
    except ImageError as error:
        return Problem("broken-picture", error.what.rstrip("."))


def text_problems(turns: tuple[Turn, ...]) -> Iterator[Problem]:
    """What is wrong with the turns of a conversation."""
    for index, turn in enumerate(turns):
        said = turn.text if turn.role == "assistant" else turn.text.replace(IMAGE_MARK, "")
        asks_by_picture = turn.role == "user" and IMAGE_MARK in turn.text
        if not said.strip() and not asks_by_picture:
            yield Problem("empty-turn", f"turn {index} ({turn.role}) has no text")
        found = _CONTROL.search(turn.text)
        if found is not None:
            yield Problem("characters", f"turn {index} holds the control character U+{ord(found[0]):04X}")
        if turn.role != "user" and IMAGE_MARK in turn.text:
            yield Problem("marks", f"turn {index} ({turn.role}) has an {IMAGE_MARK} mark")
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    wanted = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or spoken != wanted:
        said = ", ".join(roles[:6]) + (" …" if len(roles) > 6 else "")
        yield Problem("role-order", f"its turns are {said}: not user and assistant in turn")
