"""What a recipe means on this machine: processes, samples per device, precision, the library's arguments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.errors import BluelmError, RecipeError, UsageError, raise_all
from stages.workshop.training.recipe import LearningRecipe

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True)
class Machine:
    """Where training runs.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`; None takes a GPU if there is one.
        threads: CPU threads of the products; None takes the library's choice.
    """

    device: str | None = None
    threads: int | None = None

    @property
    def processes(self) -> int:
        """Processes that train together; torchrun and accelerate say so in WORLD_SIZE."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def rank(self) -> int:
        """Number of this process among them, from 0; torchrun and accelerate say so in RANK."""
        return int(os.environ.get("RANK", "0"))

    @property
    def name(self) -> str:
        """The device that will be used.

        Raises:
            UsageError: unknown, or not there.
        """
        import torch

        if self.device is None:
            return "cuda" if torch.cuda.is_available() else "cpu"
        kind, _, index = self.device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise UsageError(
                f"--device is {self.device!r}.", "Training runs on cpu or cuda.", "Write cpu, cuda or cuda:1."
            )
        if kind == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"--device is {self.device!r}, but this torch ({torch.__version__}) sees no GPU.",
                "The model cannot be moved there.",
                "Leave --device away, or install a CUDA build of torch and a driver that fits it.",
            )
        if index and int(index) >= (torch.cuda.device_count() if kind == "cuda" else 1):
            raise UsageError(f"--device is {self.device!r}.", "There is no such device here.", "Choose a lower number.")
        return self.device


def samples_per_device(recipe: LearningRecipe, machine: Machine) -> int:
    """global_batch / (accumulation × processes).

    Raises:
        RecipeError: it is no whole number.
    """
    passes = recipe.accumulation * machine.processes
    if recipe.global_batch % passes:
        raise RecipeError(
            f"global_batch is {recipe.global_batch}, accumulation × processes is "
            f"{recipe.accumulation} × {machine.processes} = {passes}.",
            "global_batch = samples per device × accumulation × processes, in whole numbers.",
            f"Choose a global_batch that is a multiple of {passes}, or another accumulation.",
        )
    return recipe.global_batch // passes


def check_machine(recipe: LearningRecipe, machine: Machine) -> None:
    """Finds all that speaks against training here, before anything is loaded.

    Raises:
        BluelmError: all problems together.
    """
    problems: list[BluelmError] = []
    for check in (
        lambda: machine.name,
        lambda: samples_per_device(recipe, machine),
        lambda: _check_sharding(recipe, machine),
    ):
        try:
            check()
        except BluelmError as error:
            problems.append(error)
    raise_all(problems)


def _check_sharding(recipe: LearningRecipe, machine: Machine) -> None:
    """Raises: UsageError: a way of sharding that would silently be another one."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1"):
        raise UsageError(
            "Accelerate's configuration asks for FSDP.",
            "On the CPU accelerate silently trains without it, and elsewhere it would shard what is sharded already.",
            "Start with plain processes (accelerate launch --multi_gpu, or torchrun) and give "
            "--set execution.sharding=fsdp2.",
        )
    if recipe.execution.sharding == "fsdp2" and machine.processes == 1:
        raise UsageError(
            "execution.sharding is fsdp2, but there is one process.",
            "There is nobody to share weights with.",
            "Start several: torchrun --nproc-per-node 8 -m bluelm_cli …; or leave the key away.",
        )


def arguments(recipe: LearningRecipe, machine: Machine, states: Path) -> TrainingArguments:
    """The library's arguments: a recipe's values, and everything that would print, log or upload switched off."""
    from transformers import TrainingArguments

    device = machine.name
    made = TrainingArguments(
        output_dir=str(states),
        max_steps=recipe.steps,
        per_device_train_batch_size=samples_per_device(recipe, machine),
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        max_grad_norm=recipe.optimizer.max_grad_norm,
        bf16=recipe.dtype == "bfloat16",
        activation_checkpointing=recipe.execution.activation_checkpointing,
        use_cpu=device == "cpu",
        seed=recipe.seed,
        dataloader_num_workers=recipe.execution.loader_workers,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        # Ours: see StageTrainer and Order, which goes on where a state says.
        ignore_data_skip=True,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )
    # Several GPUs in one process would mean torch's DataParallel; one process per GPU is torchrun's business.
    made._n_gpu = min(1, made.n_gpu)
    return made
