"""Questions with known answers, read from a corpus in LLaVA's JSON (or JSON lines).

Every human turn with the reply after it is one question, asked on its own: a question that needs an earlier turn of
its conversation cannot be scored this way. A row's pictures belong to all of its questions. A system turn at the start
is left out: models are asked with the prompt of their own template. `task` is one for the row or a list, one per
question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.json_items import BrokenItem, json_items
from stages.artifacts.llava_rows import IMAGE_MARK, read_llava_row
from stages.artifacts.picture_roots import picture_file, read_roots

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
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in corpus.glob("*.json") if _is_split(file))) or "none"
        raise DataError(
            f"{path} does not exist.",
            "Its questions are what the model is measured on.",
            f"Splits of this corpus: {there}. Choose one with --split.",
        )
    roots = read_roots(corpus)
    return [question for number, item in json_items(path) for question in _questions(path, number, item, roots)]


def _is_split(file: Path) -> bool:
    return file.name not in ("artifact.json", "run.json", "index.json", "report.json")


def _questions(path: Path, number: int, item: Any, roots: Mapping[int, Path]) -> Iterator[Question]:
    def refuse(what: str) -> DataError:
        return DataError(f"{path}, row {number}: {what}.", "The question cannot be asked or scored.", _FIX)

    if isinstance(item, BrokenItem):
        raise refuse(item.what)
    row, problems = read_llava_row(item, number)
    if row is None:
        raise refuse("; ".join(problem.text for problem in problems))
    turns = row.turns[1:] if row.turns[0][0] == "system" else row.turns
    if not turns or [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise refuse("'conversations' is not question and answer in turn")
    count = len(turns) // 2
    if len(row.tasks) not in (0, 1, count):
        raise refuse(f"'task' names {len(row.tasks)} tasks for {count} questions")
    tasks = row.tasks if len(row.tasks) == count else (row.tasks or (NO_TASK,)) * count
    pictures = tuple(picture_file(reference, roots, path)[0] for reference in row.pictures)
    for index in range(count):
        asked, replied = turns[2 * index][1], turns[2 * index + 1][1]
        text = re.sub(rf"\s*{IMAGE_MARK}\s*", "\n", asked).strip()
        name = row.name if count == 1 else f"{row.name}/{index}"
        yield Question(name, pictures, text, replied.strip(), tasks[index])
