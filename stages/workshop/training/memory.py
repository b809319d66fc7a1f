"""Memory of a training step: exact for weights, gradients and optimizer, a rule of thumb for activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stages.workshop.training.parameters import ParameterPlan

_FLOAT32 = 4


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def as_dict(self) -> dict[str, int]:
        """Bytes by what holds them."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
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
) -> MemoryEstimate:
    """Estimates one device's memory.

    Args:
        plans: all parameters; weights, gradients and the optimizer's averages are float32.
        config: the model's configuration.
        samples: samples per device and pass.
        tiles: tiles of a sample.
        tokens: tokens of a sample.
        number_bytes: bytes of an activation.
        checkpointing: only every layer's input is kept.
    """
    everything = list(plans)
    learned = [plan for plan in everything if plan.trained]
    vision, text = config.vision_config, config.text_config
    # A frozen tower keeps nothing for a backward pass; the language model always does, below it something learns.
    tower_learns = any(plan.trained and plan.part == "vision_tower" for plan in everything)
    activations = samples * tokens * _per_token(text, checkpointing) * number_bytes
    if tower_learns:
        activations += samples * tiles * config.patches_per_side**2 * _per_token(vision, checkpointing) * number_bytes
    return MemoryEstimate(
        weights=_FLOAT32 * sum(plan.count for plan in everything),
        gradients=_FLOAT32 * sum(plan.count for plan in learned),
        # AdamW keeps two averages, Muon one.
        optimizer=sum(_FLOAT32 * plan.count * (1 if plan.method == "muon" else 2) for plan in learned),
        activations=int(activations),
    )


def _per_token(config: Any, checkpointing: bool) -> int:
    """Numbers kept per token: about twelve widths and four MLP widths a layer (measured on the tiny preset, ±10 %).

    With checkpointing each layer keeps its input, and one layer at a time is whole again.
    """
    layers, width = config.num_hidden_layers, config.hidden_size
    layer = 12 * width + 4 * config.intermediate_size
    return int(layers * width + layer if checkpointing else layers * layer)
