"""From conversations to samples: token ids, which of them are answers, and which pictures fill the image slots.

A sample is never cut inside a picture. One that is too long loses text at its end, gets fewer tiles, or is left out, as
the recipe says; where that would leave nothing to learn it is left out too. All of it is counted, and named row by row
in the report (see sample_report.py), never done silently.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.device.prompt.encoder import PromptEncoder
from stages.workshop.corpus.row import Row, Turn
from stages.workshop.training.pictures import Tiled, TileSource
from stages.workshop.training.sample_report import Case, Fate, SampleReport, place_name

TooLong = Literal["cut_text", "shrink_tiling", "drop"]
_REMEMBERED = 4096


@dataclass(frozen=True)
class Sample:
    """A conversation as the model reads it: L token ids, image slots expanded, and which are the assistant's.

    Attributes:
        name: its row's.
        ids, is_answer: [L].
        pictures: in the order of their slots.
        tiles: all of its pictures together.
    """

    name: str
    ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]
    pictures: tuple[Tiled, ...]
    tiles: int

    @property
    def length(self) -> int:
        """Tokens, image tokens included."""
        return len(self.ids)


class SampleBuilder:
    """Turns conversations into samples and keeps account.

    Args:
        encoder: the model's prompt encoder.
        tokens_per_tile: image tokens of one tile.
        limit: most tokens of a sample.
        source: how many tiles pictures have, and how they get fewer.
        too_long: what becomes of a sample of more tokens.
        report: where the account is kept.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        tokens_per_tile: int,
        limit: int,
        source: TileSource,
        too_long: TooLong = "cut_text",
        report: SampleReport | None = None,
    ) -> None:
        self._encoder = encoder
        self._tokens_per_tile = tokens_per_tile
        self._limit = limit
        self._source = source
        self._shorten: Callable[[_Draft], _Draft | Fate] = {
            "cut_text": self._cut_text,
            "shrink_tiling": self._shrink_tiling,
            "drop": lambda draft: "too_long",
        }[too_long]
        self.report = SampleReport() if report is None else report
        self.data_pass = 0
        # Rendered corpora say the same few things about thousands of pictures.
        self._encode = functools.lru_cache(maxsize=_REMEMBERED)(self._encode_once)

    def build(self, row: Row) -> Sample | None:
        """A sample, or None where it is left out.

        Args:
            row: a conversation of the corpus.

        Raises:
            UsageError: slots and pictures do not match, or a message is malformed.
            ImageError: a picture that cannot be measured.
        """
        whole = self._draft(row, tuple(Tiled(picture) for picture in row.pictures))
        made: _Draft | Fate = whole if whole.length <= self._limit else self._shorten(whole)
        if not isinstance(made, str) and not made.learned:
            made = "nothing_to_learn"
        if isinstance(made, str):
            self._note(whole, made)
            return None
        if made is not whole:
            self._note(whole, "cut" if made.counts == whole.counts else "shrunk", made)
        tiles = sum(made.counts)
        self.report.take(made.length, made.learned, tiles)
        return Sample(row.name, made.ids, made.is_answer, made.pictures, tiles)

    def _draft(self, row: Row, pictures: tuple[Tiled, ...]) -> _Draft:
        counts = tuple(self._source.tile_count(picture) for picture in pictures)
        return _Draft(row, pictures, counts, *self._encode(row.turns, counts))

    def _cut_text(self, draft: _Draft) -> _Draft | Fate:
        """The same without the end of its text, where all of its pictures stand before that."""
        slots = np.flatnonzero(draft.ids == self._encoder.image_token_id)
        if len(slots) and slots[-1] >= self._limit:
            return "pictures_too_long"
        ids, is_answer = draft.ids[: self._limit], draft.is_answer[: self._limit]
        return _Draft(draft.row, draft.pictures, draft.counts, ids, is_answer)

    def _shrink_tiling(self, draft: _Draft) -> _Draft | Fate:
        """The same with fewer tiles: the picture with the most of them is made coarser until all tokens fit."""
        pictures, counts = list(draft.pictures), list(draft.counts)
        text = draft.length - sum(counts) * self._tokens_per_tile
        open_ends = set(range(len(pictures)))
        while text + sum(counts) * self._tokens_per_tile > self._limit:
            if not open_ends:
                return "too_long"
            largest = max(open_ends, key=lambda index: (counts[index], -index))
            coarser = self._source.coarser(pictures[largest])
            if coarser is None:
                open_ends.remove(largest)
                continue
            pictures[largest], counts[largest] = coarser, self._source.tile_count(coarser)
        return self._draft(draft.row, tuple(pictures))

    def _note(self, whole: _Draft, fate: Fate, made: _Draft | None = None) -> None:
        tiles = [sum(whole.counts)] if whole.counts else []
        if made is not None and fate == "shrunk":
            tiles.append(sum(made.counts))
        self.report.note(
            Case(
                row=whole.row.name,
                fate=fate,
                place=place_name(whole.row.place),
                tokens=whole.length,
                kept=0 if made is None else made.length,
                tiles=tuple(tiles),
                data_pass=self.data_pass,
            )
        )

    def _encode_once(
        self, turns: tuple[Turn, ...], tile_counts: tuple[int, ...]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Token ids and whether each is an answer's, both [L]."""
        tokens = [count * self._tokens_per_tile for count in tile_counts]
        prompt = self._encoder.encode(Row("", turns).messages(), tokens)
        return np.array(prompt.ids, dtype=np.int32), np.array(prompt.is_answer, dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class _Draft:
    """A row encoded with its pictures tiled in one way; `counts` are their tiles."""

    row: Row
    pictures: tuple[Tiled, ...]
    counts: tuple[int, ...]
    ids: NDArray[np.int32]
    is_answer: NDArray[np.bool_]

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def learned(self) -> int:
        """Tokens that are learned; the first never is, nothing stands before it."""
        return int(self.is_answer[1:].sum())
