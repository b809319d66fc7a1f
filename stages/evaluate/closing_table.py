"""The closing table: what each form of a model gets right, and what it costs, beside the question-only baseline.

Rows come from `bench` artifacts: evaluations give accuracy, tokens and seconds, speed runs give rates. A speed run
belongs to the evaluation of the same model (by digest); one without an evaluation has a row of its own.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ArtifactError, BluelmError, raise_all
from stages.artifacts.folder import Artifact, open_artifact
from stages.artifacts.manifest import RUN_FILE
from stages.evaluate.report import EVAL_FILE, EvalReport, read_report
from stages.measure.record_files import RESULTS_FILE
from stages.measure.records import OURS

FORMS = {"checkpoint": "float", "quantized": "quantized", "onnx": "exported"}
BASELINE = "question only"
_ORDER = (*FORMS.values(), BASELINE)


@dataclass(frozen=True)
class TableRow:
    """One form of a model. A value nobody measured is None.

    Attributes:
        form: float, quantized, exported, or the baseline.
        model: its name.
        questions: how many were asked.
        accuracy: share of right answers to all questions.
        interval: of that share, 95 %.
        tasks: share of right answers per task.
        image_tokens, prompt_tokens: per question.
        seconds: for all questions, loading left out.
        bytes: of the model's folder.
        prefill_tok_s, decode_tok_s: of its speed run; the first chunk size that was measured.
    """

    form: str
    model: str
    questions: int | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    tasks: dict[str, float | None] = field(default_factory=dict)
    image_tokens: float | None = None
    prompt_tokens: float | None = None
    seconds: float | None = None
    bytes: int | None = None
    prefill_tok_s: float | None = None
    decode_tok_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class ClosingTable:
    """Rows in the order float, quantized, exported, baseline; `warnings` say what makes rows incomparable."""

    tasks: tuple[str, ...]
    rows: tuple[TableRow, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The table as plain data."""
        return {
            "tasks": list(self.tasks),
            "rows": [row.as_dict() for row in self.rows],
            "warnings": list(self.warnings),
        }


def closing_table(folders: Sequence[Path]) -> ClosingTable:
    """Reads `bench` artifacts and lays them out as one table.

    Raises:
        ArtifactError: a folder is no `bench` artifact or holds neither an evaluation nor a speed run; all of them
            together.
    """
    artifacts = _open_all(folders)
    evals = [(artifact, read_report(artifact.path)) for artifact in artifacts if _has(artifact, EVAL_FILE)]
    rows = {_model_key(report): _eval_row(artifact, report) for artifact, report in evals}
    for artifact in artifacts:
        if _has(artifact, RESULTS_FILE):
            _add_speed(rows, artifact)
    ordered = sorted(rows.values(), key=lambda row: _ORDER.index(row.form))
    reports = [report for _, report in evals]
    if reports:
        ordered.append(_baseline_row(reports[0]))
    tasks = tuple(sorted({task for row in ordered for task in row.tasks}))
    return ClosingTable(tasks, tuple(ordered), tuple(_warnings(folders, reports, rows)))


def _open_all(folders: Sequence[Path]) -> list[Artifact]:
    artifacts: list[Artifact] = []
    problems: list[BluelmError] = []
    for folder in folders:
        try:
            artifact = open_artifact(folder, "bench")
            if not (_has(artifact, EVAL_FILE) or _has(artifact, RESULTS_FILE)):
                raise ArtifactError(
                    f"{folder} holds neither {EVAL_FILE} nor {RESULTS_FILE}.",
                    "The table is made of evaluations and speed runs.",
                    "Give folders written by bluelm bench run or bluelm bench eval.",
                )
            artifacts.append(artifact)
        except ArtifactError as error:
            problems.append(error)
    raise_all(problems)
    return artifacts


def _has(artifact: Artifact, name: str) -> bool:
    return artifact.manifest is not None and name in artifact.manifest.files


def _model_key(report: EvalReport) -> tuple[str, str]:
    return report.model.digest, report.data.questions


def _eval_row(artifact: Artifact, report: EvalReport) -> TableRow:
    asked = report.total.questions
    return TableRow(
        form=FORMS[report.model.kind],
        model=report.model.name,
        questions=asked,
        accuracy=report.total.accuracy,
        interval=report.total.interval,
        tasks={task: result.accuracy for task, result in report.tasks.items()},
        image_tokens=report.tokens.image / asked if asked else None,
        prompt_tokens=report.tokens.prompt / asked if asked else None,
        seconds=_seconds(artifact),
        bytes=report.model.bytes,
    )


def _seconds(artifact: Artifact) -> float | None:
    """How long answering took; it stands in `run.json`, which an artifact may have lost without harm."""
    try:
        seconds = json.loads((artifact.path / RUN_FILE).read_bytes()).get("seconds_answering")
    except (OSError, ValueError, AttributeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None


def _baseline_row(report: EvalReport) -> TableRow:
    return TableRow(
        form=BASELINE,
        model=BASELINE,
        questions=report.total.questions,
        accuracy=report.total.baseline,
        tasks={task: result.baseline for task, result in report.tasks.items()},
    )


def _add_speed(rows: dict[tuple[str, str], TableRow], artifact: Artifact) -> None:
    """Puts a speed run's rates into the rows of its model, or into a row of its own."""
    records = _records(artifact.path / RESULTS_FILE)
    manifest = artifact.manifest
    digest = manifest.parents[0].digest if manifest is not None and manifest.parents else artifact.digest
    prefill, decode = _rate(records, "prefill"), _rate(records, "decode")
    mine = [key for key in rows if key[0] == digest]
    if not mine:
        rows[digest, ""] = TableRow(form=FORMS["onnx"], model=str(records[0].get("model", "")) if records else "")
        mine = [(digest, "")]
    for key in mine:
        rows[key] = replace(rows[key], prefill_tok_s=prefill, decode_tok_s=decode)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}.", "It holds the rates.", "Make it again: bluelm bench MODEL --out FOLDER"
        ) from error
    # Peers that ran beside our model (bench table5) are not it.
    return [record for record in records if isinstance(record, dict) and record.get("engine", OURS) == OURS]


def _rate(records: Sequence[dict[str, Any]], test: str) -> float | None:
    found = [record.get("median_ts") for record in records if record.get("test") == test]
    numbers = [rate for rate in found if isinstance(rate, int | float)]
    if not numbers:
        return None
    # Decoding is the same after every chunk size; prefill is not, so the first (usually the paper's t128) speaks.
    return statistics.median(numbers) if test == "decode" else numbers[0]


def _warnings(
    folders: Sequence[Path], reports: Sequence[EvalReport], rows: dict[tuple[str, str], TableRow]
) -> list[str]:
    warnings = []
    if len({report.data.questions for report in reports}) > 1:
        same = "the same corpus" if len({report.data.corpus for report in reports}) == 1 else "different corpora"
        warnings.append(
            f"The evaluations asked different questions ({same}): their accuracies cannot be compared. "
            "Run bench eval with the same --data, --split, --task and --limit."
        )
    if len(rows) < len(reports):
        warnings.append("Two evaluations are of the same model and questions; only the last of them is shown.")
    empty = [report.model.name for report in reports if not report.total.questions]
    if empty:
        warnings.append(f"No question was asked of {', '.join(empty)}.")
    if not reports:
        warnings.append(f"None of the {len(folders)} folders is an evaluation, so there is no accuracy to show.")
    return warnings
