"""`eval.json`: how one model did on one set of questions, as a file that later comparisons read.

It holds nothing that changes from run to run: the time it took lies in `run.json`, outside the artifact's digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import ArtifactError
from stages.artifacts.typed_json import read_typed_json
from stages.evaluate.questions import Question
from stages.evaluate.scores import Answered, Score, score, score_by_task

EVAL_FILE = "eval.json"
ANSWERS_FILE = "answers.jsonl"
WRONG_FILE = "wrong.jsonl"
SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskScore(_Strict):
    """One task, or all together: counts, share of right answers, its 95 % interval, question-only baseline."""

    questions: int
    correct: int
    accuracy: float | None
    interval: tuple[float, float]
    baseline: float | None
    baseline_correct: int


class Tokens(_Strict):
    """Tokens of all questions together; the prompt's include the pictures'."""

    image: int
    prompt: int
    generated: int


class ModelFacts(_Strict):
    """What was asked: its name, kind, digest and the bytes of its folder."""

    name: str
    kind: Literal["checkpoint", "quantized", "onnx"]
    digest: str
    bytes: int


class DataFacts(_Strict):
    """What it was asked: the corpus' digest, the split, and a digest of the very questions."""

    corpus: str
    split: str
    questions: str


class EvalReport(_Strict):
    """The whole of `eval.json`."""

    schema_version: int = SCHEMA_VERSION
    model: ModelFacts
    data: DataFacts
    metric: Literal["exact match"] = "exact match"
    total: TaskScore
    tasks: dict[str, TaskScore]
    tokens: Tokens


def make_report(model: ModelFacts, data: DataFacts, answered: Sequence[Answered]) -> EvalReport:
    """Counts a set of answers."""
    return EvalReport(
        model=model,
        data=data,
        total=_as_task_score(score(answered)),
        tasks={task: _as_task_score(result) for task, result in score_by_task(answered).items()},
        tokens=Tokens(
            image=sum(row.reply.image_tokens for row in answered),
            prompt=sum(row.reply.prompt_tokens for row in answered),
            generated=sum(row.reply.generated_tokens for row in answered),
        ),
    )


def _as_task_score(result: Score) -> TaskScore:
    return TaskScore.model_validate(result.as_dict())


def digest_questions(questions: Iterable[Question]) -> str:
    """sha256 over the questions' names, pictures, texts and answers, whatever order they are asked in."""
    rows = [
        [item.name, [picture.name for picture in item.pictures], item.text, item.truth, item.task] for item in questions
    ]
    return digest_json(sorted(rows))


def write_report(folder: Path, report: EvalReport, answered: Sequence[Answered]) -> None:
    """Writes `eval.json`, every answer, and the wrong ones apart."""
    (folder / EVAL_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _write_lines(folder / ANSWERS_FILE, (row.as_dict() for row in answered))
    _write_lines(folder / WRONG_FILE, (row.as_dict() for row in answered if not row.right))


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_report(folder: Path) -> EvalReport:
    """Reads an evaluation's `eval.json`.

    Raises:
        ArtifactError: it is missing, broken or of another schema.
    """
    path = folder / EVAL_FILE
    fix = "Make it again: bluelm bench eval MODEL --data CORPUS --out FOLDER --force"
    report = read_typed_json(
        path,
        EvalReport,
        ArtifactError,
        unreadable="It holds the accuracy.",
        broken="Its numbers cannot be trusted.",
        fix=fix,
    )
    if report.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {report.schema_version}, this bluelm reads {SCHEMA_VERSION}.",
            "Fields may mean something else there.",
            fix,
        )
    return report
