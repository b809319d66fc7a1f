"""bench eval: how often a model is right, whatever form it has: float or quantized checkpoint, or exported graphs.

    bluelm bench eval MODEL --data CORPUS --out FOLDER

All three are asked the same questions in the same prompts and answer greedily, so their accuracies can be set side by
side. Exported models answer through the device's runtime and import no torch.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import RUN_FILE, parent_of
from stages.artifacts.recipes import RecipeModel
from stages.evaluate.asking import Asked, ask, choose
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.opening import KINDS, TorchAnswers, opened_answerer
from stages.evaluate.questions import Question, read_questions
from stages.evaluate.report import (
    DataFacts,
    EvalReport,
    ModelFacts,
    digest_questions,
    make_report,
    read_report,
    write_report,
)

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact

TRAINING_SPLIT = "train"
SECONDS = "seconds_answering"


class EvalConfig(RecipeModel):
    """What is asked, and how.

    Attributes:
        split: the split of the corpus.
        task: only questions of these tasks; all where none are named.
        limit: at most so many questions, taken evenly from all.
        max_tokens: most tokens of an answer.
        batch: questions a torch model answers at once; the exported one answers one after the other.
        threads: CPU threads.
        device: where a torch model runs.
    """

    split: str = "heldout"
    task: tuple[str, ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = None
    max_tokens: int = Field(default=32, ge=1)
    batch: int = Field(default=32, ge=1)
    threads: Annotated[int, Field(ge=1)] | None = None
    device: str = "cpu"

    def identity(self) -> dict[str, Any]:
        """What decides the answers; batches, threads and device only decide how fast they come."""
        return self.model_dump(mode="json", exclude={"batch", "threads", "device"})


@dataclass(frozen=True)
class EvalResult:
    """An evaluation. `seconds` is what answering took, without loading; None where it is no longer known."""

    report: EvalReport
    seconds: float | None
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        where = None if self.out is None else self.out.as_posix()
        return {**self.report.model_dump(mode="json"), "seconds": self.seconds, "out": where}


@dataclass(frozen=True)
class EvalPlan:
    """What an evaluation would ask."""

    model: str
    kind: str
    questions: int
    pictures: int
    tasks: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dict(vars(self))


def plan(config: EvalConfig, model: Path, corpus: Path) -> EvalPlan:
    """What `run` would do; raises as it does."""
    source = open_artifact(model, *KINDS)
    questions = _questions(config, corpus)
    tasks = sorted({question.task for question in questions})
    counts = {task: sum(question.task == task for question in questions) for task in tasks}
    pictures = {picture for question in questions for picture in question.pictures}
    return EvalPlan(model.as_posix(), source.kind, len(questions), len(pictures), counts)


def run(
    config: EvalConfig, model: Path, corpus: Path, out: Path | None = None, force: bool = False
) -> Events[EvalResult]:
    """Asks a model every question and counts.

    Args:
        config: what is asked.
        model: an exported model, a checkpoint, or a quantized one.
        corpus: a corpus with the split, and with `train.json` for the question-only baseline.
        out: where to write a `bench` artifact; nothing is kept without it.
        force: replace what is there.

    Raises:
        ArtifactError: the model or the corpus is of another kind, or `out` is in the way.
        DataError: the split is missing or a row cannot be read.
        UsageError: a task that no question has.
        ModelError, ImageError: the model or a picture cannot be read.
    """
    source = open_artifact(model, *KINDS)
    questions = _questions(config, corpus)
    if not questions:
        yield Notice(f"{corpus} has no question in {config.split}: there is nothing to measure.", "warning")
    if out is None:
        report, asked = yield from _evaluate(config, source, corpus, questions)
        yield Finished(EvalResult(report, asked.seconds, None))
        return
    spec = ArtifactSpec("bench", "bench eval", config.identity(), None, (parent_of(model), parent_of(corpus)))
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(EvalResult(read_report(out), _seconds(out), out))
        return
    with create(out, spec, force=force) as draft:
        report, asked = yield from _evaluate(config, source, corpus, questions)
        write_report(draft.path, report, asked.answered)
        draft.metrics.update(accuracy=report.total.accuracy, questions=report.total.questions)
        draft.run[SECONDS] = round(asked.seconds, 3)
    yield Finished(EvalResult(report, asked.seconds, out))


def _questions(config: EvalConfig, corpus: Path) -> list[Question]:
    return choose(read_questions(open_artifact(corpus, "corpus").path, config.split), config.task, config.limit)


def _seconds(out: Path) -> float | None:
    try:
        return float(json.loads((out / RUN_FILE).read_bytes())[SECONDS])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _evaluate(
    config: EvalConfig, source: Artifact, corpus: Path, questions: Sequence[Question]
) -> Generator[Event[Any], None, tuple[EvalReport, Asked]]:
    has_training = (corpus / f"{TRAINING_SPLIT}.json").is_file()
    baseline = QuestionOnly(read_questions(corpus, TRAINING_SPLIT) if has_training else [])
    if not has_training:
        yield Notice(f"{corpus} has no {TRAINING_SPLIT}.json: the question-only baseline knows nothing.", "warning")

    def load() -> TorchAnswers:
        from stages.workshop.quant.greedy import GreedyAnswers

        quantized = source.kind == "quantized"
        return GreedyAnswers(
            source.path,
            quantized=quantized,
            max_tokens=config.max_tokens,
            batch=config.batch,
            threads=config.threads,
            device=config.device,
        )

    with opened_answerer(source, load, max_tokens=config.max_tokens, threads=config.threads) as answerer:
        asked = yield from ask(questions, answerer, baseline)
    files = (entry.stat().st_size for entry in source.path.rglob("*") if entry.is_file())
    model = ModelFacts.model_validate(
        {"name": source.path.name, "kind": source.kind, "digest": source.digest, "bytes": sum(files)}
    )
    data = DataFacts(corpus=parent_of(corpus).digest, split=config.split, questions=digest_questions(questions))
    return make_report(model, data, asked.answered), asked
