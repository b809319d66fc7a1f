"""`accuracy.json`: a model's score on a suite, per category, with intervals; what a comparison of two reads."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from stages.artifacts.errors import ArtifactError
from stages.artifacts.typed_json import read_typed_json
from stages.evaluate.bootstrap import Difference, compare_scores, mean_interval
from stages.evaluate.predictions import Prediction, paired
from stages.evaluate.report import ModelFacts, Tokens
from stages.evaluate.suite_metrics import METRICS

ACCURACY_FILE = "accuracy.json"
SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteScore(_Strict):
    """Mean score 0 … 1 of some questions and its 95 % interval over pictures; None where none is scored."""

    questions: int
    score: float | None
    interval: tuple[float, float] | None


class Bundle(_Strict):
    """How many bundles there are, and in how many every question is right."""

    bundles: int
    right: int


class AccuracyReport(_Strict):
    """The whole of `accuracy.json`.

    Attributes:
        suite, data: what was asked: its name, the digest of its file.
        note: what the suite's score is worth beside published ones.
        metrics: what they score, by name.
        total, tasks: of all questions, of each category.
        mean_of_tasks: mean of the categories' scores, each as much as any other.
        bundles: by their name.
    """

    schema_version: int = SCHEMA_VERSION
    model: ModelFacts
    suite: str
    data: str
    note: str
    metrics: dict[str, str]
    total: SuiteScore
    tasks: dict[str, SuiteScore]
    mean_of_tasks: float | None
    bundles: dict[str, Bundle]
    tokens: Tokens


def report_of(
    model: ModelFacts, suite: str, data: str, note: str, predictions: Sequence[Prediction], seed: int
) -> AccuracyReport:
    """Counts predictions."""
    names = sorted({one.task for one in predictions})
    tasks = {name: score_of([one for one in predictions if one.task == name], seed) for name in names}
    means = [task.score for task in tasks.values() if task.score is not None]
    used = sorted({one.metric for one in predictions} & set(METRICS))
    return AccuracyReport(
        model=model,
        suite=suite,
        data=data,
        note=note,
        metrics={name: METRICS[name].note for name in used},
        total=score_of(predictions, seed),
        tasks=tasks,
        mean_of_tasks=statistics.fmean(means) if means else None,
        bundles=_bundles(predictions),
        tokens=Tokens(
            image=sum(one.image_tokens for one in predictions),
            prompt=sum(one.prompt_tokens for one in predictions),
            generated=sum(one.generated_tokens for one in predictions),
        ),
    )


def score_of(predictions: Sequence[Prediction], seed: int = 0) -> SuiteScore:
    """Mean and interval of those that are scored."""
    scored = [(one.score, one.group) for one in predictions if one.score is not None]
    if not scored:
        return SuiteScore(questions=len(predictions), score=None, interval=None)
    scores, groups = [score for score, _ in scored], [group for _, group in scored]
    interval = mean_interval(scores, groups, seed)
    return SuiteScore(questions=len(predictions), score=statistics.fmean(scores), interval=tuple(interval))


def compare_predictions(first: Sequence[Prediction], second: Sequence[Prediction], seed: int = 0) -> Difference | None:
    """First less second; None where no question is scored.

    Raises:
        UsageError: they were not asked the same.
    """
    pairs = list(paired(first, second))
    if not pairs:
        return None
    scores = [(one.score or 0.0, other.score or 0.0) for one, other in pairs]
    groups = [one.group for one, _ in pairs]
    return compare_scores([one for one, _ in scores], [other for _, other in scores], groups, seed)


def _bundles(predictions: Sequence[Prediction]) -> dict[str, Bundle]:
    right: dict[str, dict[str, bool]] = {}
    for one in predictions:
        for name, bundle in one.bundles.items():
            known = right.setdefault(name, {})
            known[bundle] = known.get(bundle, True) and one.score == 1
    return {name: Bundle(bundles=len(known), right=sum(known.values())) for name, known in right.items()}


def write_accuracy(folder: Path, report: AccuracyReport) -> None:
    """Writes `accuracy.json`."""
    (folder / ACCURACY_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_accuracy(folder: Path) -> AccuracyReport:
    """Reads `accuracy.json`.

    Raises:
        ArtifactError: it is missing, broken or of another schema.
    """
    path = folder / ACCURACY_FILE
    fix = "Make it again: bluelm bench accuracy MODEL --data FILE --out FOLDER --force"
    report: Any = read_typed_json(
        path, AccuracyReport, ArtifactError, unreadable="It holds the score.", broken="It cannot be trusted.", fix=fix
    )
    if report.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {report.schema_version}, this bluelm reads {SCHEMA_VERSION}.",
            "Fields may mean something else there.",
            fix,
        )
    return AccuracyReport.model_validate(report)
