"""What happens around every optimizer step: the guard before it, and afterwards the record, the state, the end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from stages.workshop.training.divergence import DivergedError, find_divergence
from stages.workshop.training.history import Step

if TYPE_CHECKING:
    from threading import Event as Flag

    from stages.workshop.training.trainer import StageTrainer


class StepWatch(TrainerCallback):
    """Watches a trainer's steps.

    Args:
        trainer: the trainer.
        stop: when set, a state is written after the current step and training ends.
    """

    def __init__(self, trainer: StageTrainer, stop: Flag) -> None:
        self._trainer = trainer
        self._stop = stop
        self._loss = math.nan
        self._stopping = False
        self._counts = [0, 0, 0]
        self._rates: dict[float, float] = {}
        self._since = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._since = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last moment at which a bad step has not touched the weights yet.

        Raises:
            DivergedError: the loss or the gradient is no number, or the loss a spike; a state was written.
        """
        trainer = self._trainer
        self._loss, self._stopping, self._counts = trainer.told(self._stop.is_set())
        assert trainer.optimizer is not None
        groups = trainer.optimizer.param_groups
        self._rates = {group["initial_lr"]: group["lr"] for group in groups}
        usual = trainer.monitor.history.usual_loss
        reason = find_divergence(self._loss, float(trainer.grad_norm), usual, trainer.execution.spike_factor)
        if reason is not None:
            if state.global_step:
                trainer.save_state()
            raise DivergedError(reason, state.global_step + 1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        trainer, number, last = self._trainer, state.global_step, state.global_step >= state.max_steps
        trainer.end_step()
        seconds = time.perf_counter() - self._since
        tokens, learned, slots = self._counts
        rates = {peak: self._rates[peak] for peak in sorted(self._rates, reverse=True)}
        grad_norm, eval_loss = float(trainer.grad_norm), self._evaluate(number, last)
        step = Step(number, self._loss, grad_norm, rates, tokens, learned, slots, seconds, eval_loss)
        trainer.monitor.step(step, state.max_steps)
        control.should_training_stop = self._stopping or last
        every = trainer.execution.save_every
        control.should_save = not last and (self._stopping or (every is not None and number % every == 0))
        # Evaluations and states are no part of the next step's time.
        self._since = time.perf_counter()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def _evaluate(self, number: int, last: bool) -> float | None:
        """The loss on held-out data, where there are any and it is time."""
        trainer = self._trainer
        every = trainer.execution.evaluate_every
        if trainer.evaluation is None or not (last or (every is not None and number % every == 0)):
            return None
        return trainer.evaluation.loss(trainer)
