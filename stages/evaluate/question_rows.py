"""`questions.jsonl`: what a model does on each question beside the one it came from, and two such models, paired.

One line a question: id, task, group (the first question about the same pictures: what is drawn together when
uncertainty is told), tokens of the answer, how many of them both models expect most, their summed KL in nats, and
whether each model answers exactly. Two models that were held against the same one on the same questions are compared
question by question: what makes a question hard for both then widens no interval.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.errors import ArtifactError, UsageError
from stages.evaluate.agreement import Compared, Figure
from stages.evaluate.bootstrap import ratio_difference

QUESTIONS_FILE = "questions.jsonl"


class QuestionRow(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    task: str
    group: str
    tokens: int
    same: int
    kl: float
    first_right: bool
    second_right: bool


@dataclass(frozen=True)
class PairedCost:
    """One model less another, both held against the same float model.

    Attributes:
        kl: of the KL a token, in nats; above 0 the first parts more from the float model.
        top1: of the share of tokens where float model and model expect the same.
        exact: of the share of questions answered exactly.
    """

    kl: Figure
    top1: Figure
    exact: Figure

    @property
    def worse(self) -> tuple[str, ...]:
        """In what the first is worse, beyond its interval."""
        found = {
            "KL": self.kl.interval.low > 0,
            "top-1 agreement": self.top1.interval.high < 0,
            "exact answers": self.exact.interval.high < 0,
        }
        return tuple(name for name, beyond in found.items() if beyond)

    @property
    def better(self) -> tuple[str, ...]:
        """In what it is better, beyond its interval."""
        return PairedCost(*map(_turned, (self.kl, self.top1, self.exact))).worse

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {name: figure.as_dict() for name, figure in vars(self).items()}


def rows_of(compared: Sequence[Compared]) -> list[QuestionRow]:
    """The lines of a comparison, in its order."""
    groups: dict[str, str] = {}
    return [
        QuestionRow(
            id=row.question.name,
            task=row.question.task,
            group=groups.setdefault(row.group, row.question.name),
            tokens=row.answer.tokens,
            same=row.answer.same,
            kl=row.answer.kl,
            first_right=row.first_right,
            second_right=row.second_right,
        )
        for row in compared
    ]


def write_rows(folder: Path, compared: Sequence[Compared]) -> None:
    """Writes `questions.jsonl`."""
    lines = (json.dumps(row.model_dump(mode="json"), ensure_ascii=False) + "\n" for row in rows_of(compared))
    (folder / QUESTIONS_FILE).write_text("".join(lines), encoding="utf-8")


def read_rows(folder: Path) -> list[QuestionRow]:
    """Reads `questions.jsonl` of a folder.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = folder / QUESTIONS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [QuestionRow.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {str(error).splitlines()[0]}.",
            "It says how each question went, which a paired comparison needs.",
            "Make the folder again with --force.",
        ) from error


def compare_rows(first: Sequence[QuestionRow], second: Sequence[QuestionRow], seed: int = 0) -> PairedCost:
    """First less second, with 95 % intervals over pictures.

    Raises:
        UsageError: they were not asked the same questions, or have other tokens.
    """
    others = {row.id: row for row in second}
    odd = sorted({row.id for row in first} ^ set(others))
    odd += [row.id for row in first if row.id in others and others[row.id].tokens != row.tokens]
    if odd or not first:
        which = f"{len(odd)} questions differ ({odd[0]} is one)" if odd else "there is no question"
        raise UsageError(
            f"The two models were not asked the same: {which}.",
            "A paired comparison needs the same questions of both.",
            "Measure both on the same corpus, split and number of questions.",
        )
    pairs = [(row, others[row.id]) for row in first]
    groups = [row.group for row in first]

    def difference(name: str, counts: Sequence[float], *, share: bool) -> Figure:
        mine, theirs = ([float(getattr(pair[side], name)) for pair in pairs] for side in (0, 1))
        return Figure(*ratio_difference(mine, theirs, counts, groups, seed, share=share))

    tokens = [float(row.tokens) for row in first]
    return PairedCost(
        kl=difference("kl", tokens, share=False),
        top1=difference("same", tokens, share=True),
        exact=difference("second_right", [1.0] * len(first), share=True),
    )


def _turned(figure: Figure) -> Figure:
    low, high = figure.interval
    return Figure(-figure.value, type(figure.interval)(-high, -low))
