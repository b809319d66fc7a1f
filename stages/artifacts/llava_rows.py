"""The one rule by which a row of LLaVA's JSON is read: for training, for evaluation, and for tiling its pictures.

A row is `{"id", "image", "conversations": [{"from": "human" | "gpt" | "system", "value"}]}`. `image` is a file name, a
list of them, or absent for a row of text only. Each picture has one `<image>` in the text, in order. `task` is one for
the row or a list, one per answer. Other keys are allowed. A picture that lies in a shard is an object (see
`PICTURE_KEYS`); a name that begins with `N:` lies in the corpus' root N (see `split_root`). `repeat` numbers the copies
of a row that a mixture holds on purpose, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stages.artifacts.manifest import is_inside

IMAGE_MARK = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
# What tells a picture inside a shard: a tar's member by its bytes, a table's cell by its row, column and place.
PICTURE_KEYS = (
    {"shard": str, "member": str, "offset": int, "length": int},
    {"shard": str, "column": str, "row": int, "item": int},
)
_ROOT = re.compile(r"^(\d+):")

PictureReference = str | Mapping[str, Any]


class Problem(NamedTuple):
    """What is wrong with a row: a kind to count by, and a sentence without its end."""

    kind: str
    text: str


@dataclass(frozen=True)
class LlavaRow:
    """A row as its file has it: `turns` are (role, text), `pictures` names or references into shards."""

    name: str
    turns: tuple[tuple[str, str], ...]
    pictures: tuple[PictureReference, ...]
    tasks: tuple[str, ...]
    repeat: int = 1


def read_llava_row(item: Any, number: int) -> tuple[LlavaRow | None, tuple[Problem, ...]]:
    """A row, or what is wrong with it: all of it.

    Args:
        item: a value of the file.
        number: its place in the file, its name where it has no id.
    """
    if not isinstance(item, Mapping):
        return None, (Problem("form", f"it is a {type(item).__name__}, not an object"),)
    turns, problems = _read_turns(item)
    pictures, wrong = read_pictures(item)
    problems += wrong
    tasks, wrong = read_tasks(item)
    problems += wrong
    marks = sum(text.count(IMAGE_MARK) for _, text in turns)
    if not problems and marks != len(pictures):
        problems.append(Problem("marks", f"it has {marks} {IMAGE_MARK} marks for {len(pictures)} pictures"))
    if problems:
        return None, tuple(problems)
    given = item.get("repeat")
    # Other sets may mean something else by it.
    repeat = given if type(given) is int and given > 0 else 1
    return LlavaRow(row_name(item, number), tuple(turns), tuple(pictures), tuple(tasks), repeat), ()


def row_name(item: Any, number: int) -> str:
    """A row's id as a text, or its number where it has none."""
    given = item.get("id") if isinstance(item, Mapping) else None
    return str(number if given is None else given).encode("utf-8", "backslashreplace").decode("utf-8")


def read_pictures(item: Mapping[str, Any]) -> tuple[list[PictureReference], list[Problem]]:
    """What `image` names."""
    given = item.get("image")
    if given is None:
        return [], []
    names = given if isinstance(given, list) else [given]
    if not all(_is_reference(name) for name in names):
        return [], [Problem("form", "'image' is neither a name nor a list of names")]
    outside = [name for name in map(_file_of, names) if not is_inside(split_root(name)[1])]
    return names, [Problem("outside", f"the picture {name!r} lies outside the file's folder") for name in outside]


def split_root(name: str) -> tuple[int | None, str]:
    """The number of the root that a name begins with, if any, and the name inside it."""
    found = _ROOT.match(name)
    return (int(found[1]), name[found.end() :]) if found else (None, name)


def wrong_text(text: str) -> str | None:
    """Why a text cannot be used at all; None where it can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half a character (a lone surrogate) at {error.start}"
    return None


def _is_reference(given: Any) -> bool:
    if isinstance(given, str):
        return bool(given) and wrong_text(given) is None and "\0" not in given
    return isinstance(given, Mapping) and any(
        given.keys() == keys.keys()
        and all(type(given[key]) is kind for key, kind in keys.items())
        and all(value >= 0 for value in given.values() if isinstance(value, int))
        for keys in PICTURE_KEYS
    )


def _file_of(reference: PictureReference) -> str:
    return reference if isinstance(reference, str) else str(reference["shard"])


def _read_turns(item: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[Problem]]:
    if "conversations" not in item:
        return [], [Problem("form", "it has no key 'conversations'")]
    given = item["conversations"]
    if not isinstance(given, list) or not given:
        return [], [Problem("form", "'conversations' is not a list of turns")]
    turns: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for index, turn in enumerate(given):
        wrong = read_turn(turn, index, "from", "value")
        if isinstance(wrong, tuple):
            turns.append(wrong)
        else:
            problems += wrong
    return turns, problems


def read_turn(turn: Any, index: int, speaker: str, value: str) -> tuple[str, str] | list[Problem]:
    """One turn as (role, text), or what is wrong with it.

    Args:
        turn: a value of the file.
        index: its place among the turns.
        speaker: the key of who speaks.
        value: the key of what is said.
    """
    where = f"turn {index}"
    if not isinstance(turn, Mapping):
        return [Problem("form", f"{where} is a {type(turn).__name__}, not an object")]
    missing = [Problem("form", f"{where} has no key {key!r}") for key in (speaker, value) if key not in turn]
    if missing:
        return missing
    role, text = turn[speaker], turn[value]
    if not isinstance(role, str) or role not in ROLES:
        return [Problem("role", f"{where} is from {str(role)[:40]!r}, not one of {', '.join(ROLES)}")]
    if not isinstance(text, str):
        return [Problem("form", f"{where}: {value!r} is not a text")]
    wrong = wrong_text(text)
    if wrong is not None:
        return [Problem("form", f"{where} holds {wrong}")]
    return ROLES[role], text


def read_tasks(item: Mapping[str, Any]) -> tuple[list[str], list[Problem]]:
    """What `task` names."""
    given = item.get("task")
    if given is None:
        return [], []
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and all(isinstance(name, str) and name and wrong_text(name) is None for name in names):
        return list(names), []
    return [], [Problem("form", "'task' is neither a name nor a list of names")]
