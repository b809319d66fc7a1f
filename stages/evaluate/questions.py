"""Questions with known answers, read from a corpus in LLaVA's JSON.

Every human turn with the reply after it is one question, asked on its own: a question that needs an earlier turn of
its conversation cannot be scored this way. A row's pictures belong to all of its questions. A system turn at the start
is left out: models are asked with the prompt of their own template. `task` is one for the row or a list, one per
question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.manifest import is_inside

IMAGE_MARK = "<image>"
NO_TASK = "general"
_FIX = "Make the corpus again with bluelm data, or mend the row."


@dataclass(frozen=True)
class Question:
    """One question about pictures.

    Attributes:
        name: the row's id, with the turn behind a slash where the row asks several.
        pictures: files, in the order of the prompt; empty for a text-only row.
        text: the question without picture marks.
        truth: the right answer.
        task: what kind of question it is; `NO_TASK` where the row does not say.
    """

    name: str
    pictures: tuple[Path, ...]
    text: str
    truth: str
    task: str = NO_TASK


def read_questions(corpus: Path, split: str) -> list[Question]:
    """All questions of a split, in the file's order.

    Args:
        corpus: the corpus folder.
        split: "train", "heldout" or another `SPLIT.json` in it.

    Raises:
        DataError: the file is missing, is not a list of rows, or a row cannot be read; the message has its number.
    """
    path = corpus / f"{split}.json"
    rows = _rows(path)
    return [question for number, row in enumerate(rows) for question in _questions(path, number, row)]


def _rows(path: Path) -> list[Any]:
    why = "Its questions are what the model is measured on."
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.json") if _is_split(file))) or "none"
        raise DataError(f"{path} does not exist.", why, f"Splits of this corpus: {there}. Choose one with --split.")
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", why, _FIX) from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a list of rows.", why, _FIX)
    return rows


def _is_split(file: Path) -> bool:
    return file.name not in ("artifact.json", "run.json", "index.json")


def _questions(path: Path, number: int, row: Any) -> Iterator[Question]:
    def refuse(what: str) -> DataError:
        return DataError(f"{path}, row {number}: {what}.", "The question cannot be asked or scored.", _FIX)

    if not isinstance(row, Mapping):
        raise refuse("not an object")
    pictures = _pictures(path, row, refuse)
    turns = row.get("conversations")
    if isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and turns[0].get("from") == "system":
        turns = turns[1:]
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise refuse("`conversations` is not a list of question and answer in turn")
    name = str(row.get("id", number))
    tasks = _tasks(row, len(turns) // 2, refuse)
    for index in range(0, len(turns), 2):
        asked = _said(turns[index], ("human", "user"), refuse)
        replied = _said(turns[index + 1], ("gpt", "assistant"), refuse)
        text = re.sub(rf"\s*{IMAGE_MARK}\s*", "\n", asked).strip()
        label = name if len(turns) == 2 else f"{name}/{index // 2}"
        yield Question(label, pictures, text, replied.strip(), tasks[index // 2])


def _tasks(row: Mapping[str, Any], questions: int, refuse: Callable[[str], DataError]) -> list[str]:
    """The task of each question."""
    given = row.get("task")
    if given is None or isinstance(given, str):
        return [given or NO_TASK] * questions
    if not isinstance(given, list) or not all(isinstance(task, str) and task for task in given):
        raise refuse("`task` is neither a name nor a list of names")
    if len(given) != questions:
        raise refuse(f"`task` names {len(given)} tasks for {questions} questions")
    return given


def _pictures(path: Path, row: Mapping[str, Any], refuse: Callable[[str], DataError]) -> tuple[Path, ...]:
    given = row.get("image")
    names = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refuse("`image` is neither a file name nor a list of them")
    for name in names:
        if not is_inside(name):
            raise refuse(f"the picture {name!r} lies outside the corpus")
    return tuple(path.parent / name for name in names)


def _said(turn: Any, roles: tuple[str, ...], refuse: Callable[[str], DataError]) -> str:
    if not isinstance(turn, Mapping) or turn.get("from") not in roles or not isinstance(turn.get("value"), str):
        raise refuse(f"a turn is not a text from {roles[0]!r}")
    return str(turn["value"])
