"""An exported model as an answerer: the very engine that `bluelm chat` uses, greedy, one question after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.device.prompt.messages import user
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.evaluate.answering import Answerer, Reply
from stages.evaluate.questions import Question


@contextmanager
def exported_answerer(folder: Path, *, max_tokens: int, threads: int | None = None) -> Iterator[Answerer]:
    """Loads an exported model and answers with it; the model is freed when the block ends.

    Args:
        folder: the exported model.
        max_tokens: most tokens of an answer.
        threads: CPU threads; None takes every core.

    Raises:
        ModelError: the folder cannot be loaded, or a graph fails.
        ImageError: a picture cannot be read.
    """
    engine = Engine(folder, EngineOptions(threads=threads, keep_vision=True))
    try:
        engine.wait()
        yield lambda questions: _answer_all(engine, questions, AnswerOptions(max_tokens=max_tokens))
    finally:
        engine.close()


def _answer_all(engine: Engine, questions: Sequence[Question], options: AnswerOptions) -> Iterator[Reply]:
    for question in questions:
        # The album keeps features of recent pictures, so questions about the same one are encoded once.
        pictures = [engine.album.add(path).result() for path in question.pictures]
        messages = [user(question.text, images=len(pictures))]
        for event in engine.answer(messages, pictures, options):
            if isinstance(event, Answer):
                yield Reply(event.text, event.image_tokens, event.prompt_tokens, event.generated_tokens)
