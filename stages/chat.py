"""`bluelm chat`: ask an exported model about pictures, once or in a conversation.

Vision and language load side by side; pictures are encoded from the moment they are named, the prompt is prefilled in
chunks, the answer streams (Sec. 3.4). No torch, transformers or onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError, raise_all
from stages.artifacts.events import Finished, Notice
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.loading import check_image, read_size
from stages.device.imaging.reading import completed, make_all
from stages.device.runtime.conversation import Conversation, Turn
from stages.device.runtime.decoder import DEFAULT_CHUNK
from stages.device.runtime.encoder import DEFAULT_BATCH
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.device.runtime.generator import Token
from stages.device.runtime.pictures import StoredFeatures
from stages.device.runtime.sampling import SamplingSpec


class ChatConfig(RecipeModel):
    """How to answer and how to run the model.

    Attributes:
        max_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest token always.
        top_k: draw only among this many of the likeliest; 0 for all.
        top_p: draw only among the likeliest that make up this mass.
        seed: of the draws.
        chunk: positions per prefill run (the paper, Fig. 8: 128).
        batch: tiles per batch.
        pipeline: overlap patch embedding with the ViT blocks.
        threads: CPU threads; None takes every core.
        keep_vision: hold the vision graphs in memory between pictures.
        cache: keep the prepacked weights of a large model on disk, so that it loads faster the next time.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    chunk: int = DEFAULT_CHUNK
    batch: int = DEFAULT_BATCH
    pipeline: bool = True
    threads: int | None = None
    keep_vision: bool = False
    cache: bool = True

    def answering(self) -> AnswerOptions:
        """Raises UsageError for values out of range."""
        sampling = SamplingSpec(self.temperature, self.top_k, self.top_p, self.seed)
        return AnswerOptions(self.max_tokens, sampling)

    def running(self, load_vision: bool) -> EngineOptions:
        """Raises UsageError for values out of range."""
        return EngineOptions(
            threads=self.threads,
            chunk=self.chunk,
            batch=self.batch,
            pipeline=self.pipeline,
            keep_vision=self.keep_vision,
            load_vision=load_vision,
            cache=self.cache,
        )


@dataclass(frozen=True)
class ChatResult:
    """One answered question."""

    turn: Turn
    load_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the answer, its tokens and times, and the pictures."""
        answer, pictures = asdict(self.turn.answer), self.turn.pictures
        return {
            "answer": answer.pop("text"),
            **answer,
            "load_s": self.load_s,
            "encode_s": self.turn.encoded_s,
            "images": [
                {
                    "path": str(picture.path),
                    "sha256": picture.digest,
                    "grid": list(picture.grid),
                    "tiles": picture.tiles,
                    "tokens": picture.tokens,
                    "encode_s": picture.encode_s,
                    "reused": picture.reused,
                }
                for picture in pictures
            ],
        }


@contextmanager
def conversation(
    config: ChatConfig, model: Path, features: Path | None = None, load_vision: bool = True
) -> Iterator[Conversation]:
    """A conversation with a model that begins to load at once.

    Args:
        config: how.
        model: an exported model.
        features: a `features` artifact whose pictures need not be encoded again.
        load_vision: load the vision graphs at the start rather than when the first picture comes.

    Raises:
        BluelmError: a model, artifact or value that cannot be used; all bad values together.
    """
    answering, running = _options(config, load_vision)
    artifact = open_artifact(model, "onnx")
    stored = None
    if features is not None:
        stored = StoredFeatures(open_artifact(features, "features").path, artifact.digest)
    engine = Engine(artifact.path, running, stored)
    try:
        yield Conversation(engine, answering)
    finally:
        engine.close()


def run(
    config: ChatConfig, model: Path, prompt: str, images: Sequence[Path] = (), features: Path | None = None
) -> Iterator[Token | Notice | Finished[ChatResult]]:
    """Asks one question.

    Args:
        config: how.
        model: an exported model.
        prompt: the question.
        images: the pictures it is about, in order.
        features: a `features` artifact whose pictures need not be encoded again.

    Yields:
        Every token, then the result.

    Raises:
        BluelmError: anything that cannot be used; all bad pictures together.
    """
    _check(images)
    # With no picture, or with features at hand, the vision graphs may never be needed.
    with conversation(config, model, features, load_vision=bool(images) and features is None) as talk:
        for path in images:
            talk.name(path, check=False)
        talk.engine.wait()
        for notice in talk.engine.notices:
            yield Notice(notice)
        for event in talk.ask(prompt):
            if isinstance(event, Answer):
                if event.reason not in ("stop", None):
                    yield Notice(_cut_short(event, config), "warning")
            else:
                yield event
        yield Finished(ChatResult(talk.turns[-1], talk.engine.load_s))


def _check(images: Sequence[Path]) -> None:
    """Looks at the pictures' headers before a model is loaded; where one is bad, at all pixels, to tell all at once.

    Raises:
        BluelmError: the bad pictures, together.
    """
    try:
        completed(make_all("reading", read_size, images))
    except BluelmError:
        completed(make_all("checking", check_image, images))
        raise


def _cut_short(answer: Answer, config: ChatConfig) -> str:
    if answer.reason == "max_tokens":
        return f"The answer was cut after {config.max_tokens} tokens (--max-tokens)."
    return "The answer was cut: the model's context is full."


def _options(config: ChatConfig, load_vision: bool) -> tuple[AnswerOptions, EngineOptions]:
    problems: list[BluelmError] = []
    made: list[Any] = []
    for make in (config.answering, lambda: config.running(load_vision)):
        try:
            made.append(make())
        except BluelmError as problem:
            problems.append(problem)
    raise_all(problems)
    return made[0], made[1]
