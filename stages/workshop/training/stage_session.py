"""A run of one of the paper's stages: a whole model learns from conversations about pictures."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.training.batches import SampleSet
from stages.workshop.training.data import Prepared
from stages.workshop.training.evaluation import Evaluation
from stages.workshop.training.feed import Feed, make_feed
from stages.workshop.training.machine import arguments, samples_per_device
from stages.workshop.training.monitor import Monitor
from stages.workshop.training.processes import is_main
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sample_report import write_report
from stages.workshop.training.segments import segmented_attention
from stages.workshop.training.session import Session
from stages.workshop.training.short_attention import short_attention
from stages.workshop.training.streamed import Streamed, gather, hand_in
from stages.workshop.training.streamed_order import StreamedOrder
from stages.workshop.training.trainer import StageTrainer


@dataclass(frozen=True, kw_only=True)
class StageSession(Session):
    """What a stage's run works with.

    Attributes:
        processor: its tokenizer and picture settings.
        prepared: samples and tiles, or a stream.
        heldout: samples to evaluate on, or None.
    """

    model: BlueLMVForConditionalGeneration
    recipe: TrainRecipe
    processor: BlueLMVProcessor
    prepared: Prepared | Streamed
    heldout: Prepared | None = None

    def trainer(self, monitor: Monitor, stop: threading.Event) -> StageTrainer:
        images = self.processor.image_processor
        feed = make_feed(self.prepared, self.processor, self.recipe, self.machine, self.states)
        return StageTrainer(
            model=self.model,
            args=arguments(self.recipe, self.machine, self.states),
            feed=feed,
            groups=self.groups,
            optimizer_recipe=self.recipe.optimizer,
            pixels=(images.image_mean, images.image_std),
            execution=self.recipe.execution,
            monitor=monitor,
            evaluation=self._evaluation(feed),
            stop=stop,
        )

    def report(self, trainer: StageTrainer) -> None:
        """What became of all rows, written into the artifact by the main process."""
        prepared = self.prepared
        if isinstance(prepared, Streamed):
            assert isinstance(trainer.feed.position, StreamedOrder)
            hand_in(trainer.feed.position, self.states, self.machine.rank)
            trainer.accelerator.wait_for_everyone()
        if self.folder is None or not is_main():
            return
        if isinstance(prepared, Streamed):
            write_report(self.folder, gather(prepared, self.machine, self.states), prepared.report)
        else:
            write_report(self.folder, (case.line() for case in prepared.report.cases or ()), prepared.report)

    def attention(self) -> AbstractContextManager[Any]:
        within = ExitStack()
        within.enter_context(short_attention(self.model, self.machine.name, self.recipe.dtype))
        if self.recipe.packing:
            within.enter_context(segmented_attention(self.model.language_model))
        return within

    def _evaluation(self, feed: Feed) -> Evaluation | None:
        """Held-out samples, put into batches as those of training are."""
        if self.heldout is None:
            return None
        samples = samples_per_device(self.recipe, self.machine)
        return Evaluation(SampleSet(self.heldout.samples, self.heldout.tiles), feed.collator, samples)
