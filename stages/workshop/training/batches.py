"""From samples to batches: token ids padded on the right, all tiles of the batch one after the other.

Axes: B samples, L tokens of the longest, T tiles of the whole batch, S tile side, K learned positions.

No attention mask is made: padding stands on the right, where causal attention of real tokens never looks, and it is
never learned. Without a mask attention takes its fast causal path.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from stages.workshop.model.processing import IGNORED
from stages.workshop.training.loss import learned_positions
from stages.workshop.training.pictures import TileSource
from stages.workshop.training.samples import Sample

_THREADS = 4


@dataclass(frozen=True)
class Loaded:
    """A sample with its tiles, uint8 [tiles, 3, S, S]."""

    sample: Sample
    tiles: tuple[torch.Tensor, ...]


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
        sample = self.samples[index]
        return Loaded(sample, tuple(self.tiles.tiles_of(picture) for picture in sample.pictures))

    def __getitems__(self, indices: list[int]) -> list[Loaded]:
        """A whole batch: pictures not yet in memory are decoded side by side (Pillow releases the interpreter)."""
        wanted = dict.fromkeys(picture for index in indices for picture in self.samples[index].pictures)
        missing = [picture for picture in wanted if not self.tiles.holds(picture)]
        if len(missing) > 1:
            with ThreadPoolExecutor(_THREADS) as pool:
                wanted.update(zip(missing, pool.map(self.tiles.tiles_of, missing), strict=True))
        found = {picture: self.tiles.tiles_of(picture) if tiles is None else tiles for picture, tiles in wanted.items()}
        return [
            Loaded(sample, tuple(found[picture] for picture in sample.pictures))
            for sample in (self.samples[index] for index in indices)
        ]


@dataclass(frozen=True)
class Collator:
    """Makes one batch of loaded samples.

    Attributes:
        pad_token_id: fills short samples.
    """

    pad_token_id: int

    def __call__(self, batch: Sequence[Loaded]) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels` [B, L], `positions` [K]; where there are pictures `tiles` uint8 [T, 3, S, S]."""
        length = max(loaded.sample.length for loaded in batch)
        input_ids = torch.full((len(batch), length), self.pad_token_id, dtype=torch.int64)
        labels = torch.full((len(batch), length), IGNORED, dtype=torch.int64)
        for row, loaded in enumerate(batch):
            sample = loaded.sample
            ids = torch.from_numpy(sample.ids)
            input_ids[row, : sample.length] = ids
            answer = torch.from_numpy(sample.is_answer)
            labels[row, : sample.length][answer] = ids[answer].long()
        result = {"input_ids": input_ids, "labels": labels, "positions": learned_positions(labels)}
        tiles = [picture for loaded in batch for picture in loaded.tiles]
        if tiles:
            result["tiles"] = torch.cat(tiles)  # [T, 3, S, S]
        return result
