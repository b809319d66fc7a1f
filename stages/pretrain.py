"""pretrain: stage 1 (Sec. 4, Table 7): the connector learns to speak to the language model.

bluelm pretrain --data build/corpus --preset tiny --recipe tiny/pretrain.yaml --out build/stage1
bluelm pretrain --data build/corpus --from build/vila --out build/stage1
bluelm pretrain --data build/corpus --vision google/siglip-so400m-patch14-384 --llm MiniCPM-2B --out build/stage1
"""

from __future__ import annotations

from pathlib import Path

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Events
from stages.workshop.training.machine import Machine
from stages.workshop.training.measuring import Measured, measure_stage
from stages.workshop.training.parts import FromParts
from stages.workshop.training.plan import TrainPlan, plan_stage
from stages.workshop.training.recipe import PretrainRecipe
from stages.workshop.training.sources import FreshPreset, FromCheckpoint, Source
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage

PretrainConfig = PretrainRecipe


def plan(config: PretrainConfig, inputs: StageInputs) -> TrainPlan:
    """What would be trained, how fast, and what it would take; trains nothing."""
    return plan_stage(config, inputs)


def measure(config: PretrainConfig, inputs: StageInputs) -> Events[Measured]:
    """Three steps for real, and what the whole would take at their pace; keeps nothing."""
    yield from measure_stage(config, inputs)


def run(config: PretrainConfig, inputs: StageInputs, out: Path, force: bool = False) -> Events[TrainResult]:
    """Trains stage 1 and writes a checkpoint.

    Raises:
        BluelmError: see `run_stage`.
    """
    yield from run_stage(config, inputs, out, force)


def inputs(
    config: PretrainConfig,
    data: Path,
    *,
    checkpoint: Path | None = None,
    vision: str | Path | None = None,
    llm: str | Path | None = None,
    tiles: Path | None = None,
    machine: Machine | None = None,
    images: Path | None = None,
    data_format: str | None = None,
    heldout: Path | None = None,
    features: Path | None = None,
) -> StageInputs:
    """The stage's inputs: a checkpoint, or a tower and a language model (folders or hub names), or the recipe's preset.

    Raises:
        UsageError: none of them, or a mixture; tiles and features both.
    """
    source = _source(config, checkpoint, vision, llm)
    if tiles is not None and features is not None:
        raise UsageError(
            "--tiles and --features were both given.", "Features are what tiles become.", "Give one of them."
        )
    return StageInputs(
        "pretrain",
        source,
        data,
        tiles,
        machine or Machine(),
        heldout=heldout,
        images=images,
        data_format=data_format,
        features=features,
    )


def _source(
    config: PretrainConfig, checkpoint: Path | None, vision: str | Path | None, llm: str | Path | None
) -> Source:
    parts = vision is not None or llm is not None
    if checkpoint is not None and not parts and config.preset is None:
        return FromCheckpoint(checkpoint)
    if checkpoint is None and vision is not None and llm is not None and config.preset is None:
        return FromParts(vision, llm, config.chat_template)
    if checkpoint is None and not parts and config.preset is not None:
        return FreshPreset(config.preset)
    given = {"--from": checkpoint, "--vision": vision, "--llm": llm, "preset": config.preset}
    names = " and ".join(name for name, value in given.items() if value is not None) or "none of them"
    raise UsageError(
        f"A model to start from: {names} given.",
        "It is a checkpoint, or a tower with a language model, or a preset with random weights.",
        "Give --from CHECKPOINT, or --vision and --llm, or --preset NAME; --set preset=null drops a recipe's preset.",
    )
