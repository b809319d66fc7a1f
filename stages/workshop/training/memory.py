"""Memory of a training step: exact for weights, gradients and optimizer, a rule of thumb for activations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.workshop.training.parameters import ParameterPlan

_FLOAT32 = 4
_LAYER = re.compile(r"^.*\.layers\.\d+(?=\.)")


@dataclass(frozen=True)
class PartMemory:
    """Bytes of one part of the model on one device."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer

    def as_dict(self) -> dict[str, int]:
        """Bytes by what holds them."""
        return {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    Attributes:
        parts: by part of the model.
        gathered: whole weights that a sharded model holds at a time; 0 where each device has all of them anyway.
        activations: kept for the backward pass.
    """

    parts: dict[str, PartMemory]
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(part.total for part in self.parts.values()) + self.gathered + self.activations

    def as_dict(self) -> dict[str, Any]:
        """Bytes by what holds them."""
        parts = self.parts.values()
        gathered = {"gathered_estimate": self.gathered} if self.gathered else {}
        return {
            "weights": sum(part.weights for part in parts),
            "gradients": sum(part.gradients for part in parts),
            "optimizer": sum(part.optimizer for part in parts),
            **gathered,
            "activations_estimate": self.activations,
            "total_estimate": self.total,
        }


def estimate_memory(
    plans: Iterable[ParameterPlan],
    config: Any,
    *,
    samples: int,
    tiles: float,
    tokens: float,
    number_bytes: int,
    checkpointing: bool,
    shards: int = 1,
    absent: str | None = None,
) -> MemoryEstimate:
    """Estimates one device's memory.

    Args:
        plans: all parameters; weights, gradients and the optimizer's averages are float32.
        config: the model's configuration.
        samples: samples per device and pass.
        tiles: tiles of a sample.
        tokens: tokens of a sample; its padding, if it gets any, comes on top.
        number_bytes: bytes of an activation, and of a gathered weight.
        checkpointing: only every layer's input is kept.
        shards: devices that share weights, gradients and optimizer; 1: each has its own.
        absent: a part that is not in memory while the others learn.
    """
    everything = list(plans)
    vision, text = config.vision_config, config.text_config
    # A frozen tower keeps nothing for a backward pass; the language model always does, below it something learns.
    tower_learns = any(plan.trained and plan.part == "vision_tower" for plan in everything)
    activations = samples * tokens * _per_token(text, checkpointing) * number_bytes
    if tower_learns:
        activations += samples * tiles * config.patches_per_side**2 * _per_token(vision, checkpointing) * number_bytes
    parts = dict.fromkeys(plan.part for plan in everything)
    return MemoryEstimate(
        parts={part: _of_part([plan for plan in everything if plan.part == part != absent], shards) for part in parts},
        gathered=_gathered(everything) * number_bytes if shards > 1 else 0,
        activations=int(activations),
    )


def _of_part(plans: Sequence[ParameterPlan], shards: int) -> PartMemory:
    learned = [plan for plan in plans if plan.trained]
    return PartMemory(
        weights=_FLOAT32 * sum(plan.count for plan in plans) // shards,
        gradients=_FLOAT32 * sum(plan.count for plan in learned) // shards,
        # AdamW keeps two averages, Muon one.
        optimizer=sum(_FLOAT32 * plan.count * (1 if plan.method == "muon" else 2) for plan in learned) // shards,
    )


def _gathered(plans: Iterable[ParameterPlan]) -> int:
    """Numbers that are whole at a time under FSDP2: all outside the layers, this layer and the one fetched ahead."""
    units: Counter[str] = Counter()
    for plan in plans:
        found = _LAYER.match(plan.name)
        units[found.group() if found else ""] += plan.count
    return units.pop("", 0) + 2 * max(units.values(), default=0)


def _per_token(config: Any, checkpointing: bool) -> int:
    """Numbers kept per token: about twelve widths and four MLP widths a layer (measured on the tiny preset, ±10 %).

    With checkpointing each layer keeps its input, and one layer at a time is whole again.
    """
    layers, width = config.num_hidden_layers, config.hidden_size
    layer = 12 * width + 4 * config.intermediate_size
    return int(layers * width + layer if checkpointing else layers * layer)
