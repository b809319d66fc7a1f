"""bench accuracy: a model's score on a benchmark, by that benchmark's own metric, over files on this disk.

    bluelm bench accuracy MODEL --suite docvqa --data val_v1.0.json --images FOLDER --out FOLDER
    bluelm bench accuracy MODEL --data CORPUS --metric anls --out FOLDER
    bluelm bench accuracy OTHER --data CORPUS --metric anls --out OTHER --against FOLDER

Float, quantized and exported models are asked the same and answer greedily. Replies are kept as they come: a killed run
goes on where it was. `bench eval` beside it counts exact answers to a corpus and sets them against guessing; this one
asks what published figures were measured with.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Event, Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel
from stages.evaluate.accuracy_report import (
    AccuracyReport,
    compare_predictions,
    read_accuracy,
    report_of,
    write_accuracy,
)
from stages.evaluate.answering import beside_their_pictures
from stages.evaluate.asking import choose
from stages.evaluate.opening import KINDS, TorchAnswers, opened_answerer
from stages.evaluate.predictions import PREDICTIONS_FILE, Prediction, PredictionWriter, predicted, read_predictions
from stages.evaluate.questions import read_questions
from stages.evaluate.report import ModelFacts
from stages.evaluate.suite_metrics import METRICS, UNSCORED, Key
from stages.evaluate.suites import SuiteItem, read_suite, suite_by_name

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact
    from stages.evaluate.bootstrap import Difference

# Data in LLaVA's form: a corpus of ours or a JSON file, scored by whatever metric is asked for.
LLAVA = "llava"


class AccuracyConfig(RecipeModel):
    """What is asked, and how it is scored.

    Attributes:
        suite: a benchmark's name; `llava` for data in LLaVA's form.
        metric: of `llava` data.
        split: of a corpus.
        task: only questions of these categories; all where none are named.
        limit: at most so many questions, taken evenly from all.
        max_tokens: most tokens of a reply.
        batch: questions a torch model answers at once; the exported one answers one after the other.
        threads: CPU threads.
        device: where a torch model runs.
        seed: of the draws that intervals come from.
    """

    suite: str = LLAVA
    metric: str = "exact"
    split: str = "heldout"
    task: tuple[str, ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = None
    max_tokens: int = Field(default=64, ge=1)
    batch: int = Field(default=32, ge=1)
    threads: Annotated[int, Field(ge=1)] | None = None
    device: str = "cpu"
    seed: int = Field(default=0, ge=0)

    def identity(self) -> dict[str, Any]:
        """What decides the figures; batches, threads and device only decide how fast they come."""
        return self.model_dump(mode="json", exclude={"batch", "threads", "device", "seed"})


@dataclass(frozen=True)
class Sources:
    """Where a suite's data lies.

    `data` is its file, or of `llava` a corpus folder or a JSON file; `images` a folder of pictures, if not beside it;
    `annotations` a file with the answers, if apart.
    """

    data: Path
    images: Path | None = None
    annotations: Path | None = None


@dataclass(frozen=True)
class AccuracyResult:
    """A score; `difference` is that to the model compared with, where there is one."""

    report: AccuracyReport
    difference: Difference | None
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        beside = None
        if self.difference is not None:
            interval = list(self.difference.interval)
            beside = {**asdict(self.difference), "interval": interval, "verdict": self.difference.verdict}
        where = None if self.out is None else self.out.as_posix()
        return {**self.report.model_dump(mode="json"), "difference": beside, "out": where}


@dataclass(frozen=True)
class AccuracyPlan:
    """What would be asked: questions and pictures in all, questions by category and by metric."""

    model: str
    kind: str
    suite: str
    questions: int
    pictures: int
    tasks: dict[str, int]
    metrics: dict[str, int]
    note: str

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dict(vars(self))


def plan(config: AccuracyConfig, model: Path, sources: Sources) -> AccuracyPlan:
    """What `run` would do; raises as it does."""
    source = open_artifact(model, *KINDS)
    with tempfile.TemporaryDirectory(prefix="bluelm-suite-") as scratch:
        items = _items(config, sources, Path(scratch))
    pictures = {picture for item in items for picture in item.question.pictures}
    tasks = Counter(item.question.task for item in items)
    metrics = Counter(item.metric for item in items)
    note = "" if config.suite == LLAVA else suite_by_name(config.suite).note
    return AccuracyPlan(
        model.as_posix(),
        source.kind,
        config.suite,
        len(items),
        len(pictures),
        dict(sorted(tasks.items())),
        dict(metrics),
        note,
    )


def run(
    config: AccuracyConfig,
    model: Path,
    sources: Sources,
    out: Path | None = None,
    against: Path | None = None,
    force: bool = False,
) -> Events[AccuracyResult]:
    """Asks a model every question of a suite and scores the replies.

    Args:
        config: what is asked.
        model: an exported model, a checkpoint, or a quantized one.
        sources: where the questions are.
        out: where to write a `bench` artifact; nothing is kept without it, and nothing can be resumed.
        against: what an earlier `bench accuracy` of another model wrote, to compare with question by question.
        force: replace what is there.

    Raises:
        UsageError: no such suite, metric or category, or the model compared with was asked something else.
        ArtifactError: the model or `against` is of another kind, or `out` is in the way.
        DataError: a file is missing or a row cannot be read.
        ModelError, ImageError: the model or a picture cannot be read.
    """
    source = open_artifact(model, *KINDS)
    others = None if against is None else read_predictions(open_artifact(against, "bench").path / PREDICTIONS_FILE)
    note = "" if config.suite == LLAVA else suite_by_name(config.suite).note
    if note:
        yield Notice(f"{config.suite}: {note}")
    parents = tuple(parent_of(path) for path in (model, sources.data, sources.annotations) if path is not None)
    spec = ArtifactSpec("bench", "bench accuracy", config.identity(), None, parents)
    if out is not None and up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        report, predictions = read_accuracy(out), read_predictions(out / PREDICTIONS_FILE)
        yield Finished(AccuracyResult(report, _beside(predictions, others, config.seed), out))
        return
    with tempfile.TemporaryDirectory(prefix="bluelm-suite-") as scratch:
        items = _items(config, sources, Path(scratch))
        if not items:
            yield Notice(f"{sources.data} holds no question: there is nothing to measure.", "warning")
        if out is None:
            predictions = yield from _asked(config, source, items, Path(scratch) / PREDICTIONS_FILE)
            report = _report(config, source, parents[1].digest, note, predictions)
        else:
            with create(out, spec, force=force, resumable=True) as draft:
                predictions = yield from _asked(config, source, items, draft.path / PREDICTIONS_FILE)
                report = _report(config, source, parents[1].digest, note, predictions)
                write_accuracy(draft.path, report)
                draft.metrics.update(score=report.total.score, questions=report.total.questions)
    yield Finished(AccuracyResult(report, _beside(predictions, others, config.seed), out))


def _items(config: AccuracyConfig, sources: Sources, scratch: Path) -> list[SuiteItem]:
    """The questions of a suite or of LLaVA data, names made unique, those that are wanted."""
    if config.suite == LLAVA:
        items = _llava_items(config, sources.data)
    else:
        suite = suite_by_name(config.suite)
        items = read_suite(suite, sources.data, images=sources.images, scratch=scratch, annotations=sources.annotations)
    seen: Counter[str] = Counter()
    named = []
    for item in items:
        name = item.question.name
        seen[name] += 1
        again = name if seen[name] == 1 else f"{name}#{seen[name]}"
        named.append(replace(item, question=replace(item.question, name=again)))
    wanted = {question.name for question in choose([item.question for item in named], config.task, config.limit)}
    return [item for item in named if item.question.name in wanted]


def _llava_items(config: AccuracyConfig, data: Path) -> list[SuiteItem]:
    if config.metric not in METRICS:
        raise UsageError(
            f"There is no metric {config.metric!r}.",
            "It decides what counts as right.",
            f"Metrics: {', '.join(METRICS)}.",
        )
    if data.is_dir():
        corpus, split = open_artifact(data, "corpus").path, config.split
    else:
        corpus, split = data.parent, data.stem
    questions = read_questions(corpus, split)
    return [SuiteItem(question, Key((question.truth,)), config.metric) for question in questions]


def _asked(
    config: AccuracyConfig, source: Artifact, items: Sequence[SuiteItem], path: Path
) -> Generator[Event[Any], None, list[Prediction]]:
    """Asks what `path` holds no reply to yet; gives every prediction in the order of the items."""
    writer = PredictionWriter(path)
    waiting = {item.question.name: item for item in items if item.question.name not in writer.done}
    if waiting and len(waiting) < len(items):
        yield Notice(f"{len(items) - len(waiting)} of {len(items)} replies are there already")

    def load() -> TorchAnswers:
        from stages.workshop.quant.greedy import GreedyAnswers

        return GreedyAnswers(
            source.path,
            quantized=source.kind == "quantized",
            max_tokens=config.max_tokens,
            batch=config.batch,
            threads=config.threads,
            device=config.device,
        )

    if waiting:
        ordered = beside_their_pictures([item.question for item in waiting.values()])
        with opened_answerer(source, load, max_tokens=config.max_tokens, threads=config.threads) as answerer:
            for number, (question, reply) in enumerate(zip(ordered, answerer(ordered), strict=True), start=1):
                writer.add(predicted(waiting[question.name], reply))
                yield Progress("asking", number, len(ordered), "questions")
    return writer.close([item.question.name for item in items])


def _report(
    config: AccuracyConfig, source: Artifact, data: str, note: str, predictions: Sequence[Prediction]
) -> AccuracyReport:
    size = sum(entry.stat().st_size for entry in source.path.rglob("*") if entry.is_file())
    model = ModelFacts.model_validate(
        {"name": source.path.name, "kind": source.kind, "digest": source.digest, "bytes": size}
    )
    if any(one.metric == UNSCORED for one in predictions):
        note = note or "not scored"
    return report_of(model, config.suite, data, note, predictions, config.seed)


def _beside(mine: Sequence[Prediction], others: Sequence[Prediction] | None, seed: int) -> Difference | None:
    return None if others is None else compare_predictions(mine, others, seed)
