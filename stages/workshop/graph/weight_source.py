"""Where a graph's weights come from: a checkpoint, a quantized checkpoint, or thin air (for benches)."""

from __future__ import annotations

from typing import Protocol

from stages.workshop.graph.linear import Floats, Linear


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
