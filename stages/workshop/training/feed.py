"""What a training run learns from: samples, the batches they are put into, and where in them it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.training.batches import Collator, SampleSet
from stages.workshop.training.data import Prepared
from stages.workshop.training.machine import Machine, samples_per_device
from stages.workshop.training.order import BatchOrder, Steps
from stages.workshop.training.position import DataPosition
from stages.workshop.training.recipe import TrainRecipe


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


def make_feed(prepared: Prepared, processor: BlueLMVProcessor, recipe: TrainRecipe, machine: Machine) -> Feed:
    """The feed of prepared samples: a pure function of the recipe's seed."""
    plan = Steps(
        recipe.steps, recipe.accumulation, samples_per_device(recipe, machine), machine.rank, machine.processes
    )
    lengths = [sample.length for sample in prepared.samples]
    order = BatchOrder(lengths, plan, recipe.seed, by_length=recipe.group_by_length)
    collator = Collator(processor.tokenizer.pad_token_id or 0)
    return Feed(SampleSet(prepared.samples, prepared.tiles), collator, order, order)
