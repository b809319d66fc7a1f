"""finetune: stage 2 (Sec. 4, Table 8): everything learns, the tower's lower layers more slowly.

bluelm finetune build/stage1 --data build/corpus --recipe tiny/finetune.yaml --out build/stage2
"""

from __future__ import annotations

from pathlib import Path

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Events
from stages.workshop.training.machine import Machine
from stages.workshop.training.measuring import Measured, measure_stage
from stages.workshop.training.plan import TrainPlan, plan_stage
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage

FinetuneConfig = FinetuneRecipe


def plan(config: FinetuneConfig, inputs: StageInputs) -> TrainPlan:
    """What would be trained, how fast, and what it would take; trains nothing."""
    return plan_stage(config, inputs)


def measure(config: FinetuneConfig, inputs: StageInputs) -> Events[Measured]:
    """Three steps for real, and what the whole would take at their pace; keeps nothing."""
    yield from measure_stage(config, inputs)


def run(config: FinetuneConfig, inputs: StageInputs, out: Path, force: bool = False) -> Events[TrainResult]:
    """Trains stage 2 and writes a checkpoint.

    Raises:
        BluelmError: see `run_stage`.
    """
    yield from run_stage(config, inputs, out, force)


def inputs(
    checkpoint: Path,
    data: Path,
    *,
    tiles: Path | None = None,
    machine: Machine | None = None,
    images: Path | None = None,
    data_format: str | None = None,
    heldout: Path | None = None,
    features: Path | None = None,
) -> StageInputs:
    """The stage's inputs.

    Raises:
        UsageError: features, which only a tower that does not learn can have.
    """
    if features is not None:
        raise UsageError(
            f"--features {features}: finetune reads pictures.",
            "Stage 2 trains the tower (Table 8): what it makes of a picture changes with every step.",
            "Leave --features away; pretrain reads them.",
        )
    source = FromCheckpoint(checkpoint)
    return StageInputs(
        "finetune", source, data, tiles, machine or Machine(), heldout=heldout, images=images, data_format=data_format
    )
