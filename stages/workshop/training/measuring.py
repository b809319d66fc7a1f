"""How long a stage would take: a few of its steps run for real, and are thrown away."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.artifacts.events import Events, Finished
from stages.workshop.training.processes import joined
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.session import train
from stages.workshop.training.stage import StageInputs, prepare_stage

STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What the steps took.

    Attributes:
        steps: of the whole stage.
        seconds: of each measured step; the first one warms up.
        tokens_per_s: real tokens, over all processes.
        peak_memory: bytes of this process at most: of its GPU, or of its main memory.
    """

    steps: int
    seconds: tuple[float, ...]
    tokens_per_s: float
    peak_memory: int

    @property
    def step(self) -> float:
        """Seconds of a usual step."""
        return statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "seconds_of_steps": [round(value, 4) for value in self.seconds],
            "seconds_per_step": round(self.step, 4),
            "seconds_of_training": round(self.step * self.steps, 1),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "peak_memory": self.peak_memory,
        }


def measure_stage(recipe: TrainRecipe, inputs: StageInputs) -> Events[Measured]:
    """Runs the first steps of a stage, with its batches and its model; nothing is evaluated or kept.

    Raises:
        BluelmError: whatever would stop the stage.
    """
    execution = recipe.execution.model_copy(update={"save_every": None, "tensorboard": None})
    few = recipe.model_copy(update={"steps": STEPS, "warmup_steps": 0, "log_every": 1, "execution": execution})
    work = yield from prepare_stage(few, replace(inputs, heldout=None))
    with joined(inputs.machine), tempfile.TemporaryDirectory() as folder:
        outcome = yield from train(work.session(Path(folder)))
    rates = [row["tokens_per_s"] or 0.0 for row in outcome.history.rows]
    yield Finished(Measured(recipe.steps, outcome.seconds, statistics.median(rates), _peak_memory(inputs.machine.name)))


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
