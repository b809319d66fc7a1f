"""transformers' `Trainer`, told how this project trains (Sec. 4).

Ours: which parameters learn and how fast, the order of the data, the loss at learned positions only, and states that
count only when they are complete. Everything else (accumulation, precision, devices, schedules) is the library's.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from stages.artifacts.errors import ModelError
from stages.workshop.training.batches import Collator, SampleSet
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.loss import answer_loss, normalize_tiles
from stages.workshop.training.optimizers import make_optimizer
from stages.workshop.training.order import BatchOrder
from stages.workshop.training.parameters import GroupPlan
from stages.workshop.training.recipe import OptimizerRecipe
from stages.workshop.training.states import PREFIX, drop_others, mark_complete

WEIGHTS_FILE = "model.safetensors"
# step, steps, newest point of the loss curve
Report = Callable[[int, int, float | None], None]


class StageTrainer(Trainer):
    """Trains one stage.

    Args:
        model: the model; its frozen parameters have `requires_grad` off.
        args: the library's arguments (see `arguments`).
        data: samples with pictures.
        collator: makes batches of them.
        order: which samples each batch has.
        groups: learning rate and weight decay of every trained parameter.
        optimizer_recipe: method and constants of the optimizer.
        pixels: mean and standard deviation of the image processor, 3 numbers each.
        curve: the loss so far; empty unless a state is resumed.
        report: told after every step.
        stop: when set, a state is written after the current step and training ends.
    """

    loss_is_scaled_for_ga = True
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        data: SampleSet,
        collator: Collator,
        order: BatchOrder,
        groups: Sequence[GroupPlan],
        optimizer_recipe: OptimizerRecipe,
        pixels: tuple[Sequence[float], Sequence[float]],
        curve: LossCurve,
        report: Report,
        stop: Flag,
        save_every: int | None,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=data, data_collator=collator)
        self.remove_callback(PrinterCallback)
        self.order = order
        self.groups = groups
        self.optimizer_recipe = optimizer_recipe
        self.mean, self.std = pixels
        self.curve = curve
        self._step_loss = torch.zeros((), device=args.device)
        self.add_callback(_Steps(self, report, stop, save_every))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimizer, one group per learning rate, weight decay and method."""
        if self.optimizer is None:
            parameters = dict((self.model if model is None else model).named_parameters())
            self.optimizer = make_optimizer(parameters, self.groups, self.optimizer_recipe)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Batches in our own order."""
        workers = self.args.dataloader_num_workers
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The share of this batch in the step's mean loss over all its learned tokens."""
        batch = dict(inputs)
        labels, positions, tiles = batch.pop("labels"), batch.pop("positions"), batch.pop("tiles", None)
        if tiles is not None:
            batch["pixel_values"] = normalize_tiles(tiles, self.mean, self.std)
        items = num_items_in_batch if num_items_in_batch is not None else (labels[:, 1:] >= 0).sum()
        loss = answer_loss(model, batch, labels, positions, items)
        # The library averages gradients over processes, while `items` already counts all of them.
        return loss * self.accelerator.num_processes

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The library's step; its loss is kept for the curve."""
        loss = super().training_step(*args, **kwargs)
        self._step_loss += loss
        return loss

    def end_step(self, stop: bool) -> tuple[float, bool]:
        """The loss of the step that just ended, and whether any process wants to stop: the same in all processes."""
        told = torch.stack([self._step_loss, torch.full_like(self._step_loss, float(stop))])  # [2]
        self._step_loss.zero_()
        if self.accelerator.num_processes > 1:
            told = self.accelerator.reduce(told, "mean")
        loss, stopping = told.tolist()
        return loss, stopping > 0

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the library's estimate walks all parameters in every pass and knows nothing of towers."""
        return 0

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The library's state, without pickled arguments, marked complete last; older ones go only then."""
        root = Path(self.args.output_dir)
        folder = root / f"{PREFIX}{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder, self.state.global_step, self.curve)
            drop_others(root, keep=folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Writes the trained parameters only: the frozen ones are in the model that training started from."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        weights = state_dict if state_dict is not None else dict(self.model.named_parameters())
        save_file(
            {name: weights[name].detach().contiguous() for name in weights if name in trained}, folder / WEIGHTS_FILE
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Puts the trained parameters of a state back; the frozen ones are already there."""
        weights = load_file(Path(resume_from_checkpoint) / WEIGHTS_FILE)
        (self.model if model is None else model).load_state_dict(weights, strict=False)


class _Steps(TrainerCallback):
    """After every step: the loss curve, the report, and whether to save or stop."""

    def __init__(self, trainer: StageTrainer, report: Report, stop: Flag, save_every: int | None) -> None:
        self.trainer = trainer
        self.report = report
        self.stop = stop
        self.save_every = save_every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        step, curve = state.global_step, self.trainer.curve
        loss, stopping = self.trainer.end_step(self.stop.is_set())
        if not math.isfinite(loss):
            raise diverged(step, loss)
        curve.add(step, loss)
        self.report(step, state.max_steps, curve.last)
        control.should_training_stop = stopping or step >= state.max_steps
        due = self.save_every is not None and step % self.save_every == 0
        control.should_save = stopping or (due and step < state.max_steps)
        return control


def diverged(step: int, loss: float) -> ModelError:
    """The error for a loss that is no number any more."""
    return ModelError(
        f"The loss became {loss} at step {step}.",
        "Every weight that is trained on would become useless.",
        "Lower learning_rate, raise warmup_steps, or train in float32 (--dtype float32).",
    )
