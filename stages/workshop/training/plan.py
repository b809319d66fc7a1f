"""What a stage would do: parameters, learning rates, steps, tokens, memory. Reads headers and a few samples only."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from stages.workshop.training.data import Prepared, prepare, read_rows, texts_of
from stages.workshop.training.evaluation import read_heldout
from stages.workshop.training.features import TOWER
from stages.workshop.training.machine import check_machine, samples_per_device
from stages.workshop.training.memory import MemoryEstimate, estimate_memory
from stages.workshop.training.parameters import GroupPlan, count_by_part, group, plan_parameters
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.stage import StageInputs
from stages.workshop.training.stream import Told
from stages.workshop.training.streamed import first_rows, measure_rows, open_stream

_SAMPLES = 256


@dataclass(frozen=True)
class TrainPlan:
    """A resolved stage.

    Attributes:
        stage: its name.
        recipe: every value.
        parts: per part of the model, parameters and how many of them learn.
        groups: the optimizer's groups.
        conversations: in the corpus; None where a stream would have to be read to know.
        tokens_per_sample, tiles_per_sample: means over the first samples.
        samples_per_device: per pass.
        processes: that train together.
        memory: on one device.
    """

    stage: str
    recipe: TrainRecipe
    parts: dict[str, dict[str, int]]
    groups: tuple[GroupPlan, ...]
    conversations: int | None
    tokens_per_sample: float
    tiles_per_sample: float
    samples_per_device: int
    processes: int
    memory: MemoryEstimate

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        batch = self.recipe.global_batch
        return {
            "stage": self.stage,
            "parts": {
                part: {**counts, "memory": self.memory.parts[part].as_dict()} for part, counts in self.parts.items()
            },
            "groups": [
                {
                    "learning_rate": found.learning_rate,
                    "weight_decay": found.weight_decay,
                    "method": found.method,
                    "tensors": len(found.names),
                    "parameters": found.count,
                }
                for found in self.groups
            ],
            "steps": self.recipe.steps,
            "global_batch": batch,
            "samples_per_device": self.samples_per_device,
            "accumulation": self.recipe.accumulation,
            "processes": self.processes,
            "conversations": self.conversations,
            "passes_over_the_data": self.recipe.steps * batch / self.conversations if self.conversations else None,
            "tokens_per_step": round(batch * self.tokens_per_sample),
            "tiles_per_step": round(batch * self.tiles_per_sample),
            "sharding": self.recipe.execution.sharding,
            "memory": self.memory.as_dict(),
            "recipe": self.recipe.model_dump(mode="json"),
        }


def plan_stage(recipe: TrainRecipe, inputs: StageInputs) -> TrainPlan:
    """Resolves a stage without loading weights.

    Raises:
        BluelmError: whatever would stop the stage before its first step.
    """
    check_machine(recipe, inputs.machine)
    inputs.spec(recipe)
    source = inputs.rows()
    rows = list(first_rows(source)) if recipe.streaming else read_rows(source)
    outline = inputs.source.outline(texts_of(rows))
    plans = plan_parameters(outline.shapes(recipe), recipe)
    few = rows[:_SAMPLES]
    features = inputs.stored_features(outline, recipe, plans)
    pictures = features or inputs.tiles
    if recipe.streaming:
        report = measure_rows(open_stream(source, outline, recipe, pictures), recipe, few)
    else:
        report = _drain(prepare(few, outline, recipe, pictures, cut=False)).report
    if inputs.heldout is not None:
        _drain(prepare(read_heldout(inputs.heldout)[:_SAMPLES], outline, recipe, None, cut=False))
    samples = samples_per_device(recipe, inputs.machine)
    tokens, tiles = report.tokens / report.samples, report.tiles / report.samples
    return TrainPlan(
        stage=inputs.stage,
        recipe=recipe,
        parts=count_by_part(plans),
        groups=group(plans),
        conversations=source.count if recipe.streaming else len(rows),
        tokens_per_sample=tokens,
        tiles_per_sample=tiles,
        samples_per_device=samples,
        processes=inputs.machine.processes,
        memory=estimate_memory(
            plans,
            outline.config,
            samples=samples,
            tiles=tiles,
            tokens=tokens,
            number_bytes=2 if recipe.dtype == "bfloat16" else 4,
            checkpointing=recipe.execution.activation_checkpointing,
            shards=inputs.machine.processes if recipe.execution.sharding == "fsdp2" else 1,
            absent=TOWER if features is not None else None,
        ),
    )


def _drain(events: Generator[Told, None, Prepared]) -> Prepared:
    """The value of a generator, its events dropped."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            prepared: Prepared = end.value
            return prepared
