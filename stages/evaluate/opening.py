"""Float, quantized and exported models behind the one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.artifacts.folder import Artifact
from stages.evaluate.answering import Answerer, Reply
from stages.evaluate.questions import Question

# What a torch model takes and gives: pictures and text; text, image, prompt and generated tokens.
TorchAnswers = Callable[[Sequence[tuple[tuple[Path, ...], str]]], Iterable[tuple[str, int, int, int]]]
KINDS = ("checkpoint", "quantized", "onnx")


@contextmanager
def opened_answerer(
    source: Artifact, load_torch: Callable[[], TorchAnswers], *, max_tokens: int, threads: int | None
) -> Iterator[Answerer]:
    """The model, loaded; freed when the block ends.

    Args:
        source: a checkpoint, a quantized one, or an exported model, which imports no torch.
        load_torch: loads either of the first two; this part of the program knows no torch.
        max_tokens: most tokens of an answer, of an exported model.
        threads: CPU threads of it; None takes every core.

    Raises:
        ModelError: the folder cannot be loaded, or a graph fails.
        ImageError: a picture cannot be read.
    """
    if source.kind == "onnx":
        from stages.evaluate.device_answerer import exported_answerer

        with exported_answerer(source.path, max_tokens=max_tokens, threads=threads) as answerer:
            yield answerer
        return
    answers = load_torch()

    def answer(questions: Sequence[Question]) -> Iterator[Reply]:
        yield from (Reply(*said) for said in answers([(question.pictures, question.text) for question in questions]))

    yield answer
