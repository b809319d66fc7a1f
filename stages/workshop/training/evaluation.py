"""The loss on held-out data while a model is trained; it touches neither the weights nor any random state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.workshop.corpus.readers.opening import open_rows, splits_of
from stages.workshop.corpus.row import Row
from stages.workshop.training.batches import Loaded, SampleSet
from stages.workshop.training.data import read_rows

if TYPE_CHECKING:
    from stages.workshop.training.trainer import StageTrainer


HELDOUT = "heldout"


def read_heldout(corpus: Path) -> list[Row]:
    """The conversations to evaluate on: a corpus' held-out ones, or all of it where it keeps none apart.

    Raises:
        DataError: there are none, or some cannot be used.
    """
    # A set that tells of no splits is all of one.
    splits = splits_of(corpus)
    return read_rows(open_rows(corpus, split=HELDOUT if HELDOUT in splits else splits[0]))


class Evaluation:
    """Held-out samples in their own order, in batches as large as those of training.

    No torch `DataLoader` is used: to start one draws from the random state that training goes on with.

    Args:
        data: the samples.
        collator: makes batches of them.
        batch_size: samples per process and pass.
    """

    def __init__(
        self, data: SampleSet, collator: Callable[[Sequence[Loaded]], Mapping[str, Any]], batch_size: int
    ) -> None:
        self._data = data
        self._collator = collator
        self._batch_size = batch_size

    def loss(self, trainer: StageTrainer) -> float:
        """Mean loss over all learned tokens; every process takes its share of the batches."""
        rank, processes = trainer.args.process_index, trainer.accelerator.num_processes
        starts = range(0, len(self._data), self._batch_size)
        # A sharded model computes together: all processes make the same number of passes, the last of them empty.
        mine = [starts[i] if i < len(starts) else None for i in range(rank, _ceil(len(starts), processes), processes)]
        model = trainer.model
        was_training = model.training
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)  # [summed loss, learned tokens]
        try:
            with torch.no_grad():
                for start in mine:
                    total += self._pass(trainer, start)
        finally:
            model.train(was_training)
        if processes > 1:
            total = trainer.accelerator.reduce(total, "sum")
        summed, learned = total.tolist()
        return float(summed / learned)

    def _pass(self, trainer: StageTrainer, start: int | None) -> torch.Tensor:
        """Summed loss and learned tokens of a batch, [2]; zeros where there is no batch left for this process."""
        first = 0 if start is None else start
        indices = list(range(first, min(first + self._batch_size, len(self._data))))
        batch = trainer.batch_of(self._collator(self._data.__getitems__(indices)))
        items = (batch["labels"][:, 1:] >= 0).sum()
        loss = trainer.loss_of(trainer.model, batch, 1)
        found = torch.stack([loss.double(), items.double()])
        return found * (start is not None)


def _ceil(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
