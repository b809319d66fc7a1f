"""What a training run learns from: samples, the batches they are put into, and where in them it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.training.batches import Collator, PackedCollator, SampleSet, StreamSet
from stages.workshop.training.data import Prepared
from stages.workshop.training.machine import Machine, samples_per_device
from stages.workshop.training.order import BatchOrder, Steps
from stages.workshop.training.position import DataPosition
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.streamed import Streamed


@dataclass(frozen=True)
class Feed:
    """The batches of this process.

    Attributes:
        data: samples with pictures.
        collator: makes batches of them.
        order: which samples each batch has; None where the set streams whole batches.
        position: where this process stands: the order, or the stream.
    """

    data: Dataset[Any]
    collator: Callable[[Any], dict[str, Any]]
    order: Sampler[list[Any]] | None
    position: DataPosition

    def loader(self, workers: int, pin_memory: bool) -> DataLoader:
        """Reads them, ahead of time where there are workers."""
        options: dict[str, Any] = {
            "collate_fn": self.collator,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": pin_memory,
            # A loader draws a seed when it starts; from the global state a resumed run would draw once too often.
            "generator": torch.Generator(),
        }
        if self.order is None:
            return DataLoader(self.data, batch_size=None, **options)
        return DataLoader(self.data, batch_sampler=self.order, **options)


def make_feed(
    prepared: Prepared | Streamed, processor: BlueLMVProcessor, recipe: TrainRecipe, machine: Machine, states: Path
) -> Feed:
    """The feed of prepared samples, or of a stream: a pure function of the recipe's seed.

    Args:
        prepared: what there is to learn.
        processor: the model's tokenizer and picture settings.
        recipe: how it is cut into batches.
        machine: which of these are this process'.
        states: where a stream writes what became of its rows.
    """
    plan = Steps(
        recipe.steps, recipe.accumulation, samples_per_device(recipe, machine), machine.rank, machine.processes
    )
    collator = PackedCollator() if recipe.packing else Collator(processor.tokenizer.pad_token_id or 0)
    if isinstance(prepared, Streamed):
        stream = prepared.order(recipe, plan, states)
        return Feed(StreamSet(prepared.tiles, processor.image_processor.spec.tile_size), collator, stream, stream)
    lengths = [sample.length for sample in prepared.samples]
    order = BatchOrder(lengths, plan, recipe.seed, by_length=recipe.group_by_length, packed=recipe.packing)
    return Feed(SampleSet(prepared.samples, prepared.tiles), collator, order, order)
