"""transformers' `Trainer`, told how this project trains (Sec. 4).

Ours: which parameters learn and how fast, the order of the data, the loss at learned positions only, and states that
count only when they are complete. Everything else (accumulation, precision, devices, schedules) is the library's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback

from stages.workshop.training import sharding
from stages.workshop.training.evaluation import Evaluation
from stages.workshop.training.feed import Feed
from stages.workshop.training.loss import answer_loss, normalize_tiles
from stages.workshop.training.monitor import Monitor
from stages.workshop.training.optimizers import make_optimizer
from stages.workshop.training.parameters import GroupPlan
from stages.workshop.training.position import read_position, write_position
from stages.workshop.training.recipe import Execution, OptimizerRecipe
from stages.workshop.training.states import PREFIX, drop_states, mark_complete, writing
from stages.workshop.training.steps import StepWatch

WEIGHTS_FILE = "model.safetensors"
# What rides in a batch for those who watch; the model is not asked about it.
COUNTED = ("tokens", "broken")


class StageTrainer(Trainer):
    """Trains one stage.

    Args:
        model: the model; its frozen parameters have `requires_grad` off.
        args: the library's arguments (see `arguments`).
        feed: what is learned from.
        groups: learning rate and weight decay of every trained parameter.
        optimizer_recipe: method and constants of the optimizer.
        pixels: mean and standard deviation of the image processor, 3 numbers each.
        execution: when states are written, how many are kept, when held-out data are evaluated, what a spike is.
        monitor: told of every step.
        evaluation: held-out data, or None.
        stop: when set, a state is written after the current step and training ends.
    """

    loss_is_scaled_for_ga = True
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        feed: Feed,
        groups: Sequence[GroupPlan],
        optimizer_recipe: OptimizerRecipe,
        pixels: tuple[Sequence[float], Sequence[float]],
        execution: Execution,
        monitor: Monitor,
        evaluation: Evaluation | None,
        stop: Flag,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=feed.data, data_collator=feed.collator)
        self.remove_callback(PrinterCallback)
        self.feed = feed
        self.groups = groups
        self.optimizer_recipe = optimizer_recipe
        self.mean, self.std = pixels
        self.execution = execution
        self.monitor = monitor
        self.evaluation = evaluation
        self.grad_norm: torch.Tensor | float = 0.0
        self._step_loss = torch.zeros((), device=args.device)
        # Real tokens, learned tokens, tokens with padding, passes with pictures.
        self._counted = torch.zeros(4, device=args.device, dtype=torch.int64)
        self._position = feed.position.state_dict()
        self.add_callback(StepWatch(self, stop))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimizer, one group per learning rate, weight decay and method."""
        if self.optimizer is None:
            parameters = dict((self.model if model is None else model).named_parameters())
            self.optimizer = make_optimizer(parameters, self.groups, self.optimizer_recipe)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The batches of this process; nothing is left for the library to share out."""
        return self.feed.loader(self.args.dataloader_num_workers, self.args.dataloader_pin_memory)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The share of this batch in the step's mean loss over all its learned tokens."""
        items = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] >= 0).sum()
        # The library averages gradients over processes, while `items` already counts all of them.
        return self.loss_of(model, inputs, items) * self.accelerator.num_processes

    def loss_of(self, model: nn.Module, inputs: dict[str, Any], items: torch.Tensor | int) -> torch.Tensor:
        """Summed loss of a batch over `items`."""
        if sharding.is_sharded(self.model):
            inputs = sharding.with_picture(inputs, self.model.config)
        batch = {name: value for name, value in inputs.items() if name not in COUNTED}
        labels, positions, tiles = batch.pop("labels"), batch.pop("positions"), batch.pop("tiles", None)
        if tiles is not None:
            # Features come as they were stored; tiles are uint8.
            features = tiles.is_floating_point()
            batch["vision_features" if features else "pixel_values"] = (
                tiles if features else normalize_tiles(tiles, self.mean, self.std)
            )
        loss = answer_loss(model, batch, labels, positions, items)
        if torch.is_grad_enabled() and not loss.requires_grad:
            # A pass without a picture, where only the connector learns: nothing of it learns, and that is no error.
            loss = loss + loss.new_zeros((), requires_grad=True)
        return loss

    def batch_of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A batch that did not come through the loader, on the training device, without what is only counted."""
        batch: dict[str, Any] = self._prepare_inputs({name: inputs[name] for name in inputs if name not in COUNTED})
        return batch

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The library's step; its loss and its tokens are kept for whoever watches."""
        slots = inputs["labels"].numel()
        tokens = inputs.get("tokens", slots)
        self._counted += torch.tensor([tokens, 0, slots, "tiles" in inputs]).to(self._counted)
        self._counted[1] += (inputs["labels"] >= 0).sum()
        self.feed.position.advance(inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._step_loss += loss
        return loss

    def told(self, stop: bool) -> tuple[float, bool, list[int]]:
        """What the step's passes gave, the same in all processes; called when all its gradients are there.

        Returns:
            Its loss; whether any process wants to stop; real tokens, learned tokens and tokens with padding.
        """
        told = torch.stack([self._step_loss.double(), self._step_loss.new_tensor(float(stop)).double()])
        told = torch.cat([told, self._counted.double()])  # [6]
        self._step_loss.zero_()
        self._counted.zero_()
        processes = self.accelerator.num_processes
        if processes > 1:
            told = self.accelerator.reduce(told, "sum")
        loss, stopping, *counts, pictured = told.tolist()
        if not pictured and sharding.is_sharded(self.model):
            sharding.stand_still(self.model)
        return loss / processes, stopping > 0, [int(count) for count in counts]

    def end_step(self) -> None:
        """A step is whole: a state that is written now stands here in the data."""
        self._position = self.feed.position.state_dict()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The library's; kept for whoever watches."""
        self.grad_norm = super()._get_grad_norm(model, grad_norm)
        return self.grad_norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the library's estimate walks all parameters in every pass and knows nothing of towers."""
        return 0

    def save_state(self) -> None:
        """Writes a state that stands after the last whole step, now."""
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The library's state, without pickled arguments, marked complete last; older ones go only then."""
        root = Path(self.args.output_dir)
        folder = root / f"{PREFIX}{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with writing(folder, self.state.global_step):
            super()._save_checkpoint(model, trial)
            write_position(folder, self.args.process_index, self._position)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder, self.state.global_step, self.monitor.history)
        if self.args.should_save:
            drop_states(root, self.execution.keep_states)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Writes the trained parameters only: the frozen ones are in the model that training started from."""
        weights = sharding.full_weights(self.model) if sharding.is_sharded(self.model) else state_dict
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        weights = dict(self.model.named_parameters()) if weights is None else weights
        save_file(
            {name: weights[name].detach().contiguous() for name in weights if name in trained}, folder / WEIGHTS_FILE
        )

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The library's; a sharded optimizer is gathered, and written whole."""
        if not sharding.is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        writes = self.args.should_save
        sharding.save_optimizer(self.model, self._bare_optimizer(), Path(output_dir), writes=writes)
        if writes:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not sharding.is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        sharding.load_optimizer(self.model, self._bare_optimizer(), Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _bare_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Puts the trained parameters of a state back; the frozen ones are already there."""
        folder, model = Path(resume_from_checkpoint), self.model if model is None else model
        weights = load_file(folder / WEIGHTS_FILE)
        if sharding.is_sharded(model):
            sharding.load_weights(model, weights)
        else:
            model.load_state_dict(weights, strict=False)
        self._position = read_position(folder, self.args.process_index)
        self.feed.position.load_state_dict(self._position)
