"""Rows as a model's answers make them, and the lines that tell of rows it made nothing of."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from stages.workshop.corpus.revision.answers import Pair, Task
from stages.workshop.corpus.revision.asking import Outcome
from stages.workshop.corpus.row import IMAGE_MARK, Row, Turn

# As the stage-1 sets ask: differently worded, all of them meaning the same.
CAPTION_QUESTIONS = (
    "Describe this picture.",
    "What can be seen here?",
    "Give a detailed description of the picture.",
    "What does this picture show?",
    "Tell what is in this picture.",
    "Describe what you see.",
)
_TASKS: dict[Task, str] = {"create-caption": "caption", "create-qa": "question"}


def revised(row: Row, pairs: tuple[Pair, ...], task: Task, caption_questions: tuple[str, ...]) -> Row:
    """The row with the model's pairs in place of its own; its pictures and what the system says stay.

    Args:
        row: the row.
        pairs: at least one.
        task: what was asked for.
        caption_questions: what a caption answers; the row's name decides which.
    """
    turns = [turn for turn in row.turns if turn.role == "system"]
    for number, pair in enumerate(pairs):
        question = pair.question or _choose(caption_questions, row.name)
        marks = f"{IMAGE_MARK}\n" * len(row.pictures) if number == 0 else ""
        turns += [Turn("user", marks + question), Turn("assistant", pair.answer)]
    if task in _TASKS:
        tasks: tuple[str, ...] = (_TASKS[task],) * len(pairs)
    else:
        # A pair that was left out could be any of them.
        tasks = row.tasks if len(row.tasks) in (1, len(pairs)) else ()
    return replace(row, turns=tuple(turns), tasks=tasks)


def failure(outcome: Outcome, reason: str) -> dict[str, Any]:
    """A line of `failed.jsonl`: `{"id", "place", "reason", "answers"}`."""
    return {
        "id": outcome.row.name,
        "place": str(outcome.row.place),
        "reason": reason,
        "answers": list(outcome.answers),
    }


def _choose(questions: tuple[str, ...], name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return questions[int.from_bytes(digest[:8], "big") % len(questions)]
