"""What the decoder has read so far, so that the next turn prefills only what is new.

Positions are compared by key: a text token by its id, an image token by its picture's digest and its place in it. The
same picture at the same place in the conversation is therefore never read twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.device.runtime.decoder import DEFAULT_CHUNK, Decoder
from stages.device.runtime.embedder import Embedder

Key = Hashable


@dataclass(frozen=True)
class PictureSlot:
    """A picture's place in a prompt: its digest and its features [tokens, H]."""

    digest: str
    features: NDArray[np.float32]


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as ids in which image slots are expanded, with the pictures that fill them, in order."""

    ids: Sequence[int]
    image_token_id: int
    pictures: Sequence[PictureSlot] = ()

    def __post_init__(self) -> None:
        slots = sum(token == self.image_token_id for token in self.ids)
        rows = sum(len(picture.features) for picture in self.pictures)
        if slots != rows:
            raise ValueError(f"the prompt has {slots} image tokens, the pictures fill {rows}")

    def keys(self) -> list[Key]:
        """One key per position."""
        places = self._places()
        return [next(places) if token == self.image_token_id else token for token in self.ids]

    def embed(self, start: int, embedder: Embedder) -> NDArray[np.float32]:
        """The decoder's input from position `start` on: [len(ids) - start, H]."""
        ids = np.asarray(self.ids[start:], np.int64)
        embeds = embedder(ids.tolist())
        image = ids == self.image_token_id
        if image.any():
            rows = np.concatenate([picture.features for picture in self.pictures])
            skipped = sum(token == self.image_token_id for token in self.ids[:start])
            embeds[image] = rows[skipped:]
        return embeds

    def _places(self) -> Iterator[Key]:
        for picture in self.pictures:
            for index in range(len(picture.features)):
                yield picture.digest, index


@dataclass(frozen=True)
class ReadResult:
    """The logits [V] after a prompt, and how many of its positions were already there."""

    logits: NDArray[np.float32]
    reused: int


class Context:
    """A decoder together with the keys of what is in its cache."""

    def __init__(self, decoder: Decoder, embedder: Embedder, chunk: int = DEFAULT_CHUNK) -> None:
        self.decoder, self.embedder, self.chunk = decoder, embedder, chunk
        self._keys: list[Key] = []

    @property
    def length(self) -> int:
        """Positions in the cache."""
        return len(self._keys)

    @property
    def keys(self) -> Sequence[Key]:
        """One key for each of them."""
        return self._keys

    @property
    def limit(self) -> int:
        """Positions the model can hold."""
        return self.decoder.spec.max_context

    def read(self, prompt: TokenPrompt, chunk: int | None = None) -> ReadResult:
        """Makes the cache hold exactly this prompt, computing only what it does not share with what was there.

        Raises:
            UsageError: the prompt is longer than the model's context.
            ModelError: the decoder fails.
        """
        keys = prompt.keys()
        self.decoder.reserve(len(keys))
        # The last position is always computed: its logits are the answer's first token.
        shared = min(common_prefix(self._keys, keys), len(keys) - 1)
        self.keep(shared)
        try:
            logits = self.decoder.prefill(prompt.embed(shared, self.embedder), chunk or self.chunk)
        finally:
            # Also after an interrupt: the positions that were read stay usable.
            self._keys = keys[: self.decoder.length]
        return ReadResult(logits, shared)

    def feed(self, token: int) -> NDArray[np.float32]:
        """Reads one generated token and gives the logits [V] after it; raises as `read` does."""
        logits = self.decoder.step(self.embedder([token]))
        self._keys.append(token)
        return logits

    def keep(self, length: int) -> None:
        """Forgets everything from position `length` on."""
        self._keys = self._keys[:length]
        self.decoder.truncate(length)


def common_prefix(first: Sequence[Key], second: Sequence[Key]) -> int:
    """How many leading keys two sequences share."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))
