"""An exported model as a reader of questions with their answers: prompt and answer as the device reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.artifacts.errors import UsageError
from stages.device.prompt.messages import assistant, user
from stages.device.runtime.context import PictureSlot, TokenPrompt
from stages.device.runtime.engine import Engine, EngineOptions
from stages.evaluate.agreement import Reader, StoredReading
from stages.evaluate.questions import Question


@contextmanager
def exported_reader(folder: Path, threads: int | None = None) -> Iterator[Reader]:
    """Loads an exported model; it is freed when the block ends. It reads answers alone: each place is a call.

    Args:
        folder: the exported model.
        threads: CPU threads; None takes every core.

    Raises:
        ModelError: the folder cannot be loaded, or a graph fails.
        ImageError: a picture cannot be read.
        UsageError: a question does not fit the model's context.
    """
    engine = Engine(folder, EngineOptions(threads=threads, keep_vision=True))
    try:
        engine.wait()
        yield lambda questions: (_read(engine, question) for question in questions)
    finally:
        engine.close()


def _read(engine: Engine, question: Question) -> StoredReading:
    pictures = [engine.album.add(path).result() for path in question.pictures]
    turns = [user(question.text, images=len(pictures)), assistant(question.truth)]
    encoded = engine.prompt.encode(turns, [picture.tokens for picture in pictures])
    is_answer = np.array(encoded.is_answer)
    places = np.flatnonzero(is_answer)
    first, last = int(places[0]), int(places[-1])
    context = engine.language.context
    if last > context.limit:
        raise UsageError(
            f"{question.name} has {last} tokens, the model reads {context.limit}.",
            "Its answer cannot be compared.",
            "Leave it out, or export the model with a longer --max-context.",
        )
    # What an earlier question left would be read in other pieces than a fresh prompt.
    context.keep(0)
    slots = [PictureSlot(picture.digest, picture.features) for picture in pictures]
    rows = [context.read(TokenPrompt(encoded.ids[:first], engine.prompt.image_token_id, slots)).logits]
    rows += [context.feed(token) for token in encoded.ids[first:last]]
    logits = np.stack(rows)[places - first]  # [P, V]
    # A slot without a picture is never an answer.
    logits[:, engine.config.prompt.image_token_id] = -np.inf
    return StoredReading(np.array(encoded.ids)[places], np.ones(len(places), bool), logits)
