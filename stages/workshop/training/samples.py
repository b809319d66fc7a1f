"""From conversations to samples: token ids, which of them are answers, and which pictures fill the image slots.

A sample that is too long loses text at its end, never part of a picture; where that would leave nothing to learn it is
left out. Both are counted and reported, never done silently.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.device.prompt.encoder import PromptEncoder
from stages.workshop.corpus.row import Row, Turn

_NAMED = 5
_REMEMBERED = 4096


@dataclass(frozen=True)
class Sample:
    """A conversation as the model reads it: L token ids, image slots expanded, and which are the assistant's."""

    name: str
    ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]
    pictures: tuple[Path, ...]

    @property
    def length(self) -> int:
        """Tokens, image tokens included."""
        return len(self.ids)


@dataclass
class SampleReport:
    """What became of the conversations."""

    samples: int = 0
    answer_tokens: int = 0
    tokens: int = 0
    tiles: int = 0
    cut: list[str] = field(default_factory=list)
    pictures_too_long: list[str] = field(default_factory=list)
    nothing_to_learn: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Counts for the manifest."""
        return {
            "samples": self.samples,
            "tokens": self.tokens,
            "answer_tokens": self.answer_tokens,
            "tiles": self.tiles,
            "cut": len(self.cut),
            "left_out": len(self.pictures_too_long) + len(self.nothing_to_learn),
        }

    def warnings(self, limit: int) -> list[str]:
        """One line for each kind of sample that was not taken as it is."""
        lines = (
            (self.cut, f"cut at their end to {limit} tokens"),
            (self.pictures_too_long, f"left out: their pictures alone leave no room in {limit} tokens"),
            (self.nothing_to_learn, f"left out: no answer within {limit} tokens"),
        )
        return [f"{len(names)} samples were {what}: {_first(names)}" for names, what in lines if names]


class SampleBuilder:
    """Turns conversations into samples and keeps account.

    Args:
        encoder: the model's prompt encoder.
        tokens_per_tile: image tokens of one tile.
        limit: most tokens of a sample.
    """

    def __init__(self, encoder: PromptEncoder, tokens_per_tile: int, limit: int) -> None:
        self._encoder = encoder
        self._tokens_per_tile = tokens_per_tile
        self._limit = limit
        self.report = SampleReport()
        # Rendered corpora say the same few things about thousands of pictures.
        self._encode = functools.lru_cache(maxsize=_REMEMBERED)(self._encode_once)

    def build(self, row: Row, tile_counts: Sequence[int]) -> Sample | None:
        """A sample, or None where it is left out.

        Args:
            row: a conversation of the corpus.
            tile_counts: tiles of each of its pictures.

        Raises:
            UsageError: slots and pictures do not match, or a message is malformed.
        """
        ids, is_answer = self._encode(row.turns, tuple(tile_counts))
        if len(ids) > self._limit:
            slots = np.flatnonzero(ids == self._encoder.image_token_id)
            if len(slots) and slots[-1] >= self._limit:
                self.report.pictures_too_long.append(row.name)
                return None
            ids, is_answer = ids[: self._limit], is_answer[: self._limit]
            if is_answer[1:].any():
                self.report.cut.append(row.name)
        if not is_answer[1:].any():
            self.report.nothing_to_learn.append(row.name)
            return None
        self.report.samples += 1
        self.report.tokens += len(ids)
        self.report.answer_tokens += int(is_answer[1:].sum())
        self.report.tiles += sum(tile_counts)
        return Sample(row.name, ids, is_answer, row.paths)

    def _encode_once(
        self, turns: tuple[Turn, ...], tile_counts: tuple[int, ...]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Token ids and whether each is an answer's, both [L]."""
        tokens = [count * self._tokens_per_tile for count in tile_counts]
        prompt = self._encoder.encode(Row("", turns).messages(), tokens)
        return np.array(prompt.ids, dtype=np.int32), np.array(prompt.is_answer, dtype=np.bool_)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
