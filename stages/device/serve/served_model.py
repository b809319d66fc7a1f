"""The model that a server answers with: checks in any thread, encoding and answering in the engine's thread alone."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from stages.device.imaging.geometry import Size
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.device.prompt.messages import Message
from stages.device.runtime.album import OnTiles, PictureFeatures
from stages.device.runtime.cache import overflow
from stages.device.runtime.engine import Answer, AnswerOptions, Engine
from stages.device.runtime.feature_memory import FeatureMemory
from stages.device.runtime.generator import Token
from stages.device.runtime.pictures import FeatureStore, PictureReader
from stages.device.serve.limits import MB, ServeLimits
from stages.device.serve.picture_sources import RequestPicture


class ServedModel(Protocol):
    """What a server needs of a model."""

    @property
    def name(self) -> str:
        """What clients call it."""

    @property
    def fingerprint(self) -> str:
        """Changes when the model does."""

    def check(self, messages: Sequence[Message], sizes: Sequence[Size]) -> None:
        """Raises BluelmError where a conversation cannot be asked; called in any thread."""

    def tiling(self, size: Size) -> Tiling:
        """How a picture of this size is cut; called in any thread."""

    def features(self, picture: RequestPicture, on_tiles: OnTiles | None = None) -> PictureFeatures:
        """Encodes a picture; raises ImageError, ModelError, Interrupted.

        Args:
            picture: the picture.
            on_tiles: called with tiles done and tiles in all, unless the features are there already.
        """

    def answer(
        self, messages: Sequence[Message], pictures: Sequence[PictureFeatures], options: AnswerOptions, asked: float
    ) -> Generator[Token | Answer, None, None]:
        """As `Engine.answer`."""

    def rest(self) -> None:
        """No picture waits: the vision graphs may be freed."""

    def close(self) -> None:
        """Frees everything."""


class EngineModel:
    """An exported model.

    Args:
        engine: it, loading or loaded.
        name: what clients call it.
        fingerprint: digest of the export.
        limits: what may be kept for later requests.
        stored: features that need not be computed.

    Raises:
        ModelError: the language side cannot be loaded.
    """

    def __init__(
        self, engine: Engine, name: str, fingerprint: str, limits: ServeLimits, stored: FeatureStore | None = None
    ) -> None:
        self.engine, self.name, self.fingerprint = engine, name, fingerprint
        self._reader = PictureReader(engine.encoder, engine.config, stored)
        self._cache = FeatureMemory(int(limits.cache_mb * MB), limits.cache_pictures)
        engine.language.contexts.allow(limits.contexts, limits.contexts_mb * MB)

    def check(self, messages: Sequence[Message], sizes: Sequence[Size]) -> None:
        """Renders and counts the prompt, so that what does not fit is told before anything waits or is encoded.

        Raises:
            ContextLengthError: it does not fit the model's context.
            ModelError: the chat template does not take this conversation.
        """
        limit = self.engine.config.decoder.max_context
        letters = sum(len(text) for message in messages for text in _texts(message))
        # Tokenizing megabytes takes seconds: no token is longer than the longest.
        at_least = max(letters // self._longest_token, len(messages))
        if at_least > limit:
            raise overflow(at_least, limit)
        tokens = [self.tiling(size).tokens for size in sizes]
        encoded = self.engine.prompt.encode(messages, tokens, add_generation_prompt=True)
        if len(encoded.ids) > limit:
            raise overflow(len(encoded.ids), limit)

    def tiling(self, size: Size) -> Tiling:
        """See `ServedModel`."""
        return plan_tiling(size, self.engine.config.tiling)

    def features(self, picture: RequestPicture, on_tiles: OnTiles | None = None) -> PictureFeatures:
        """See `ServedModel`."""
        known = self._cache.get(picture.digest)
        if known is not None:
            return replace(known, path=Path(picture.name), encode_s=0.0, reused=True)
        made = self._reader.encode(Path(picture.name), picture.data, picture.digest, on_tiles)
        self._cache.put(replace(made, spans=()))  # what ran when is never asked for, and would not be counted
        return made

    def answer(
        self, messages: Sequence[Message], pictures: Sequence[PictureFeatures], options: AnswerOptions, asked: float
    ) -> Generator[Token | Answer, None, None]:
        """See `ServedModel`."""
        yield from self.engine.answer(messages, pictures, options, asked)

    def rest(self) -> None:
        """See `ServedModel`."""
        if not self.engine.options.keep_vision and self.engine.encoder.loaded:
            self.engine.encoder.release()

    def close(self) -> None:
        """See `ServedModel`."""
        self.engine.close()

    @cached_property
    def _longest_token(self) -> int:
        """Letters of the longest token; a byte-level one has as many as bytes."""
        return max(len(token) for token in self.engine.prompt.tokenizer.get_vocab())


def _texts(message: Message) -> Iterator[str]:
    content = message["content"]
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if part["type"] == "text")
