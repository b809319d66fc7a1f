"""Conversation data in LLaVA's JSON: read with every problem found, and written.

A file is a list of rows `{"id", "image", "conversations": [{"from": "human" | "gpt" | "system", "value"}]}`. `image` is
a file name, a list of them, or absent for a row of text only; names are relative to the JSON's folder. Each picture has
one `<image>` in the text, in order. Other keys are allowed; `task` is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError, raise_all
from stages.artifacts.manifest import is_inside

IMAGE_MARK = "<image>"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
# A broken file may have a problem in every row; so many are told one by one.
_NAMED = 20


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
        pictures: names of its pictures relative to `folder`, in the order of their marks.
        folder: where the pictures lie.
        tasks: kinds of question, one for each answer; empty where the file does not say.
    """

    name: str
    turns: tuple[Turn, ...]
    pictures: tuple[str, ...] = ()
    folder: Path = Path()
    tasks: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of its pictures."""
        return tuple(self.folder / name for name in self.pictures)

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as transformers takes it (see `stages.device.prompt.messages`)."""
        return [{"role": turn.role, "content": list(_parts(turn.text))} for turn in self.turns]

    def as_json(self) -> dict[str, Any]:
        """The row as it stands in a file."""
        row: dict[str, Any] = {"id": self.name}
        if self.pictures:
            row["image"] = self.pictures[0] if len(self.pictures) == 1 else list(self.pictures)
        if self.tasks:
            row["task"] = self.tasks[0] if len(self.tasks) == 1 else list(self.tasks)
        row["conversations"] = [{"from": _SPEAKERS[turn.role], "value": turn.text} for turn in self.turns]
        return row


def write_llava(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as LLaVA JSON, one to a line."""
    lines = (json.dumps(row.as_json(), ensure_ascii=False) for row in rows)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read_llava(path: Path, *, check_pictures: bool = True) -> list[Row]:
    """Reads and checks a whole file.

    Args:
        path: the JSON file.
        check_pictures: also report pictures that do not exist.

    Raises:
        DataError: the file cannot be read, or rows cannot be used (all of them together, the first few by name).
    """
    content = _load(path)
    rows: list[Row] = []
    problems: list[DataError] = []
    for number, item in enumerate(content):
        row, found = _read_row(number, item, path.parent)
        if check_pictures and row is not None and not found:
            found = [f"the picture {file} does not exist" for file in row.paths if not file.is_file()]
        problems += [_problem(path, number, item, text) for text in found]
        if row is not None:
            rows.append(row)
    if len(problems) > _NAMED:
        more = f"{path}: {len(problems) - _NAMED} more problems like these."
        problems[_NAMED:] = [DataError(more, "Those rows cannot be used either.", "Mend them in the same way.")]
    raise_all(problems)
    return rows


def _load(path: Path) -> list[Any]:
    why = "It holds the conversations to work with."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path} is not JSON: {error.msg} at {where}.", why, "Mend that place.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}.", why, "Save it as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", why, "Check the path.") from error
    if not isinstance(content, list):
        found = type(content).__name__
        raise DataError(f"{path} holds a {found}, not a list.", why, "LLaVA's JSON is a list of rows.")
    return content


def _read_row(number: int, item: Any, folder: Path) -> tuple[Row | None, list[str]]:
    """The row, where it can be made, and what is wrong with it."""
    if not isinstance(item, Mapping):
        return None, [f"it is a {type(item).__name__}, not an object"]
    turns, problems = _read_turns(item)
    pictures, wrong = _names(item, "image")
    problems += wrong
    problems += [f"the picture {name!r} lies outside the file's folder" for name in pictures if not is_inside(name)]
    tasks, wrong = _names(item, "task")
    problems += wrong
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if not problems and marks != len(pictures):
        problems.append(f"it has {marks} {IMAGE_MARK} marks for {len(pictures)} pictures")
    if problems:
        return None, problems
    name = str(item.get("id", number))
    return Row(name, tuple(turns), tuple(pictures), folder, tuple(tasks)), []


def _read_turns(item: Mapping[str, Any]) -> tuple[list[Turn], list[str]]:
    if "conversations" not in item:
        return [], ["it has no key 'conversations'"]
    given = item["conversations"]
    if not isinstance(given, list) or not given:
        return [], ["'conversations' is not a list of turns"]
    turns: list[Turn] = []
    problems: list[str] = []
    for index, turn in enumerate(given):
        where = f"turn {index}"
        if not isinstance(turn, Mapping):
            problems.append(f"{where} is a {type(turn).__name__}, not an object")
            continue
        missing = [key for key in ("from", "value") if key not in turn]
        if missing:
            problems += [f"{where} has no key {key!r}" for key in missing]
        elif turn["from"] not in _ROLES:
            problems.append(f"{where} is from {turn['from']!r}, not one of {', '.join(_ROLES)}")
        elif not isinstance(turn["value"], str):
            problems.append(f"{where}: 'value' is not a text")
        else:
            turns.append(Turn(_ROLES[turn["from"]], turn["value"]))
    return turns, problems


def _names(item: Mapping[str, Any], key: str) -> tuple[list[str], list[str]]:
    """One text or a list of them, as a list."""
    given = item.get(key)
    if given is None:
        return [], []
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
        return list(names), []
    return [], [f"{key!r} is neither a name nor a list of names"]


def _problem(path: Path, number: int, item: Any, text: str) -> DataError:
    name = item.get("id") if isinstance(item, Mapping) else None
    which = f"row {number}" if name is None else f"row {number} (id {name})"
    return DataError(
        f"{path}, {which}: {text}.", "The row cannot be learned from or asked.", "Mend the row, or leave it out."
    )


def _parts(text: str) -> Iterator[dict[str, str]]:
    """A turn's text as parts: pictures and the text between them, line breaks beside a picture dropped."""
    pieces = text.split(IMAGE_MARK)
    for index, piece in enumerate(pieces):
        if index:
            yield {"type": "image"}
        kept = piece.strip("\n") if len(pieces) > 1 else piece
        if kept.strip() or len(pieces) == 1:
            yield {"type": "text", "text": kept}
