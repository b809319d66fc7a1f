"""bench agreement: how far a second model parts from a first one on a corpus' held-out questions.

    bluelm bench agreement build/stage2 build/int4 --data build/corpus

Either is a float checkpoint, a quantized folder (computing as its export does) or an exported model. Both are given the
right answers, token by token; see `stages/evaluate/agreement.py` for the figures.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.events import Event, Events, Finished, Notice, Progress
from stages.artifacts.folder import Artifact, ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel
from stages.evaluate.agreement import Agreement, Compared, Reader, ReadingStore, compare, summarize
from stages.evaluate.answering import beside_their_pictures
from stages.evaluate.asking import choose
from stages.evaluate.question_rows import write_rows
from stages.evaluate.questions import Question, read_questions

if TYPE_CHECKING:
    import torch

KINDS = ("checkpoint", "quantized", "onnx")
REPORT_FILE = "agreement.json"
# From so many tokens and questions on the intervals are narrow enough to hold a model to 98 % and one point.
ENOUGH_TOKENS = 5000


class AgreementConfig(RecipeModel):
    """What is compared, and how.

    Attributes:
        split: the split of the corpus.
        task: only questions of these tasks; all where none are named.
        limit: at most so many questions, taken evenly from all.
        everywhere: compare all text of the prompts too, where both models can; takes the disk more.
        batch: questions a torch model reads at once.
        threads: CPU threads.
        device: where a torch model runs.
        dtype: of a float checkpoint.
    """

    split: str = "heldout"
    task: tuple[str, ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = 2000
    everywhere: bool = False
    batch: int = Field(default=16, ge=1)
    threads: Annotated[int, Field(ge=1)] | None = None
    device: str = "cpu"
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16|float16)$")

    def identity(self) -> dict[str, Any]:
        """What decides the figures; batches, threads and device only decide how fast they come."""
        return self.model_dump(mode="json", exclude={"batch", "threads", "device"})


@dataclass(frozen=True)
class AgreementPlan:
    """What would be compared."""

    first: str
    second: str
    questions: int
    pictures: int

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class AgreementResult:
    """Two models and how far they part. `first` and `second` are name and kind."""

    first: dict[str, str]
    second: dict[str, str]
    agreement: dict[str, Any]
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints, and the file holds but for `out`."""
        where = None if self.out is None else self.out.as_posix()
        return {"first": self.first, "second": self.second, **self.agreement, "out": where}


def plan(config: AgreementConfig, first: Path, second: Path, corpus: Path) -> AgreementPlan:
    """What `run` would do; raises as it does."""
    sources = [open_artifact(path, *KINDS) for path in (first, second)]
    questions = _questions(config, corpus)
    pictures = {picture for question in questions for picture in question.pictures}
    kinds = [f"{source.path.as_posix()} ({source.kind})" for source in sources]
    return AgreementPlan(kinds[0], kinds[1], len(questions), len(pictures))


def run(
    config: AgreementConfig, first: Path, second: Path, corpus: Path, out: Path | None = None, force: bool = False
) -> Events[AgreementResult]:
    """Compares two models.

    Args:
        config: what is compared.
        first: the model that the second is held against: float, quantized or exported.
        second: the other one.
        corpus: a corpus with the split.
        out: where to write a `bench` artifact; nothing is kept without it.
        force: replace what is there.

    Raises:
        ArtifactError: a model or the corpus is of another kind, or `out` is in the way.
        DataError: the split is missing or empty, or a row cannot be read.
        UsageError: a task that no question has; the models have different tokenizers.
        ModelError, ImageError: a model or a picture cannot be read.
    """
    sources = open_artifact(first, *KINDS), open_artifact(second, *KINDS)
    questions = _questions(config, corpus)
    if out is None:
        agreement = yield from _compared(config, sources, questions, [])
        yield Finished(_result(sources, agreement.as_dict(), None))
        return
    parents = tuple(parent_of(path) for path in (first, second, corpus))
    spec = ArtifactSpec("bench", "bench agreement", config.identity(), None, parents)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(sources, json.loads((out / REPORT_FILE).read_bytes())["agreement"], out))
        return
    with create(out, spec, force=force) as draft:
        rows: list[Compared] = []
        agreement = yield from _compared(config, sources, questions, rows)
        result = _result(sources, agreement.as_dict(), None)
        whole = {"first": result.first, "second": result.second, "agreement": result.agreement}
        (draft.path / REPORT_FILE).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        write_rows(draft.path, rows)
        draft.metrics.update(top1_agreement=agreement.answers.top1_agreement.value, kl=agreement.answers.kl.value)
    yield Finished(_result(sources, agreement.as_dict(), out))


def _questions(config: AgreementConfig, corpus: Path) -> list[Question]:
    found = read_questions(open_artifact(corpus, "corpus").path, config.split)
    questions = choose(found, config.task, config.limit)
    if not questions:
        raise DataError(
            f"{corpus / config.split}.json has no questions.",
            "There is nothing to compare the models on.",
            "Give another --split, or a corpus with held-out rows.",
        )
    return beside_their_pictures(questions)


def _compared(
    config: AgreementConfig, sources: tuple[Artifact, Artifact], questions: list[Question], rows: list[Compared]
) -> Generator[Event[Any], None, Agreement]:
    """One model after the other, so that only one is in memory."""
    with tempfile.TemporaryDirectory(prefix="bluelm-agreement-") as folder:
        store = ReadingStore(Path(folder) / "readings")
        with _reader(config, sources[0]) as reader:
            for done in store.keep(reader(questions)):
                yield Progress("first model", done, len(questions), "questions")
        with _reader(config, sources[1]) as reader:
            compared = compare(questions, store, reader(questions))
            for row in _same_tokenizer(compared, sources):
                rows.append(row)
                yield Progress("second model", len(rows), len(questions), "questions")
    agreement = summarize(rows)
    if agreement.answers.tokens < ENOUGH_TOKENS:
        text = f"{agreement.answers.tokens} answer tokens: from {ENOUGH_TOKENS} on the intervals are narrow"
        yield Notice(text)
    return agreement


def _same_tokenizer(compared: Iterator[Compared], sources: tuple[Artifact, Artifact]) -> Iterator[Compared]:
    try:
        yield from compared
    except ValueError as error:
        raise UsageError(
            f"{sources[0].path} and {sources[1].path} cannot be compared: {error}.",
            "Next tokens of different tokenizers have nothing in common.",
            "Compare two models that come from the same checkpoint.",
        ) from error


@contextmanager
def _reader(config: AgreementConfig, source: Artifact) -> Iterator[Reader]:
    """The model, loaded, behind the one interface; freed when the block ends."""
    if source.kind == "onnx":
        from stages.evaluate.device_reader import exported_reader

        with exported_reader(source.path, config.threads) as reader:
            yield reader
        return
    import torch

    from stages.workshop.quant.teacher_forcing import ForcedReader

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model, processor, mode = _torch_model(config, source, getattr(torch, config.dtype))
    yield ForcedReader(model, processor, mode, batch=config.batch, answers_only=not config.everywhere)


def _torch_model(config: AgreementConfig, source: Artifact, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    from stages.workshop.model.checkpoint import load_checkpoint
    from stages.workshop.quant.kv_cache import check_layers
    from stages.workshop.quant.quantized_folder import QuantizedFolder
    from stages.workshop.quant.simulation import load_quantized
    from stages.workshop.quant.teacher_forcing import ReadingMode, device_mode

    if source.kind == "quantized":
        model, processor = load_quantized(source.path, exact=True)
        mode = device_mode(QuantizedFolder(source.path), check_layers(model.config))
        return model.to(config.device), processor, mode
    model, processor = load_checkpoint(source.path, dtype, config.device)
    return model.eval(), processor, ReadingMode()


def _result(sources: tuple[Artifact, Artifact], agreement: dict[str, Any], out: Path | None) -> AgreementResult:
    first, second = ({"name": source.path.name, "kind": source.kind} for source in sources)
    return AgreementResult(first, second, agreement, out)
