"""Where a graph's weights come from: a checkpoint, a quantized checkpoint, or thin air (for benches)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from stages.device.contract.activations import Activations
from stages.workshop.graph.linear import Floats, Linear
from stages.workshop.quant.activation_policy import ActivationChoice


class WeightSource(Protocol):
    """Weights by name, read one at a time; the asker says which shape it expects."""

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        """The Linear of module `name` (such as `language_model.lm_head`) in the form it is stored in.

        Raises:
            ModelError: absent, or of another shape.
        """
        ...

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """The parameter `name` (such as `language_model.model.norm.weight`) in float32.

        Raises:
            ModelError: absent, or of another shape.
        """
        ...


def with_activations(weights: WeightSource, choice: ActivationChoice) -> WeightSource:
    """The same weights whose inputs are all rounded to `choice`; as they are for `policy`."""
    return weights if choice == "policy" else _OneActivation(weights, choice)


@dataclass(frozen=True)
class _OneActivation:
    weights: WeightSource
    activations: Activations

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        return replace(self.weights.linear(name, rows, columns, bias=bias), activations=self.activations)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        return self.weights.tensor(name, shape)
