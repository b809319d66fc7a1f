"""How to chat with an exported model: one configuration for questions, conversations and the server."""

from __future__ import annotations

from typing import Any

from stages.artifacts.errors import BluelmError, raise_all
from stages.artifacts.recipes import RecipeModel
from stages.device.runtime.decoder import DEFAULT_CHUNK
from stages.device.runtime.encoder import DEFAULT_BATCH
from stages.device.runtime.engine import AnswerOptions, EngineOptions
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
        cache: keep on disk the prepacked weights of a large model, so that it loads faster the next time, and the
            features of pictures, so that they need not be encoded again.
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


def chat_options(config: ChatConfig, load_vision: bool) -> tuple[AnswerOptions, EngineOptions]:
    """How to answer and how to run.

    Raises:
        BluelmError: values out of range; all of them together.
    """
    problems: list[BluelmError] = []
    made: list[Any] = []
    for make in (config.answering, lambda: config.running(load_vision)):
        try:
            made.append(make())
        except BluelmError as problem:
            problems.append(problem)
    raise_all(problems)
    return made[0], made[1]
