"""From samples to batches: token ids padded on the right or packed, all tiles of the batch one after the other.

Axes: B samples, L tokens of the longest, T tiles of the whole batch, S tile side, K learned positions.

No attention mask is made: padding stands on the right, where causal attention of real tokens never looks, and it is
never learned. Without a mask attention takes its fast causal path.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from stages.artifacts.errors import ImageError
from stages.workshop.model.processing import IGNORED
from stages.workshop.training.loss import learned_positions
from stages.workshop.training.packing import lay_out
from stages.workshop.training.pictures import Tiled, TileSource
from stages.workshop.training.samples import Sample

_THREADS = 4


Batch = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """A sample with its tiles, uint8 [tiles, 3, S, S]; `problem` says why they are grey and nothing is learned."""

    sample: Sample
    tiles: tuple[torch.Tensor, ...]
    problem: str | None = None


class SampleSet(Dataset[Loaded]):
    """Samples with their pictures, loaded as they are asked for.

    Args:
        samples: what there is to learn.
        tiles: where pictures' tiles come from.
    """

    def __init__(self, samples: Sequence[Sample], tiles: TileSource) -> None:
        self.samples = samples
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Loaded:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Loaded]:
        """A whole batch."""
        return load([self.samples[index] for index in indices], self.tiles)


def load(samples: Sequence[Sample], source: TileSource) -> list[Loaded]:
    """Samples with their tiles: pictures not at hand are decoded side by side (Pillow releases the interpreter).

    Raises:
        ImageError: a broken picture.
    """
    wanted = dict.fromkeys(picture for sample in samples for picture in sample.pictures)
    missing = [picture for picture in wanted if not source.holds(picture)]
    found: dict[Tiled, torch.Tensor] = {}
    if len(missing) > 1:
        with ThreadPoolExecutor(_THREADS) as pool:
            found.update(zip(missing, pool.map(source.tiles_of, missing), strict=True))
    found |= {picture: source.tiles_of(picture) for picture in wanted if picture not in found}
    return [Loaded(sample, tuple(found[picture] for picture in sample.pictures)) for sample in samples]


class StreamSet(Dataset[Loaded]):
    """Loads the pictures of samples that a stream gives; a broken one costs its sample, not the run.

    Args:
        tiles: where pictures' tiles come from.
        side: of a tile in pixels.
    """

    def __init__(self, tiles: TileSource, side: int) -> None:
        self.tiles = tiles
        self.side = side

    def __getitems__(self, samples: list[Sample]) -> list[Loaded]:
        """A whole batch."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._load, samples))

    def _load(self, sample: Sample) -> Loaded:
        try:
            return load([sample], self.tiles)[0]
        except ImageError as error:
            grey = torch.full((sample.tiles, 3, self.side, self.side), 128, dtype=torch.uint8)
            return Loaded(replace(sample, is_answer=np.zeros_like(sample.is_answer)), (grey,), error.what)


@dataclass(frozen=True)
class Collator:
    """Makes one batch of loaded samples.

    Attributes:
        pad_token_id: fills short samples.
    """

    pad_token_id: int

    def __call__(self, batch: Sequence[Loaded]) -> Batch:
        """`input_ids`, `labels` [B, L], `positions` [K], `tokens` without padding; pictures' `tiles` [T, 3, S, S]."""
        length = max(loaded.sample.length for loaded in batch)
        input_ids = torch.full((len(batch), length), self.pad_token_id, dtype=torch.int64)
        labels = torch.full((len(batch), length), IGNORED, dtype=torch.int64)
        for row, loaded in enumerate(batch):
            sample = loaded.sample
            ids = torch.from_numpy(sample.ids)
            input_ids[row, : sample.length] = ids
            answer = torch.from_numpy(sample.is_answer)
            labels[row, : sample.length][answer] = ids[answer].long()
        made = {"input_ids": input_ids, "labels": labels, "positions": learned_positions(labels), **_extras(batch)}
        return made | {"tokens": sum(loaded.sample.length for loaded in batch)}  # without padding; only counted


class PackedCollator:
    """Makes one batch of loaded samples without padding: they lie end to end in one row."""

    def __call__(self, batch: Sequence[Loaded]) -> Batch:
        """What `lay_out` says; for pictures also `tiles` [T, 3, S, S]."""
        return {**lay_out([loaded.sample for loaded in batch]), **_extras(batch)}


def _extras(batch: Sequence[Loaded]) -> Batch:
    """Where there are any: `tiles` of all samples, in the order of their slots; `broken` samples and their problems."""
    tiles = [picture for loaded in batch for picture in loaded.tiles]
    broken = tuple((loaded.sample.name, loaded.problem) for loaded in batch if loaded.problem is not None)
    extras: Batch = {"tiles": torch.cat(tiles)} if tiles else {}  # [T, 3, S, S]
    return extras | ({"broken": broken} if broken else {})
