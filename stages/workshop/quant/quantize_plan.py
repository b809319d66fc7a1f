"""What `bluelm quantize` would write, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.device.contract.activations import Activations
from stages.workshop.quant.plan import WeightPlan
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.recipe import QuantizeConfig
from stages.workshop.quant.report import PartReport, sum_all, sum_parts


@dataclass(frozen=True)
class QuantizePlan:
    """Every tensor with its scheme and bytes."""

    weights: WeightPlan
    config: QuantizeConfig

    @property
    def parts(self) -> tuple[PartReport, ...]:
        """Totals per part of the model."""
        return sum_parts(self.weights.tensors)

    @property
    def total(self) -> PartReport:
        """Totals of the whole."""
        return sum_all(self.weights.tensors)

    def own_keys(self, activations: Mapping[str, Activations]) -> OwnKeys:
        """Our key of the folder's quantization_config, once it is known what inputs are rounded to."""
        config = self.config
        transforms = [f"rotation {config.rotation}"] if config.rotation != "none" else []
        transforms += [f"smoothing {rule.modules} {rule.alpha:g}" for rule in config.smoothing]
        return OwnKeys(
            method="+".join(sorted(set(self.weights.methods.values()))) or "rtn",
            transforms=tuple(transforms),
            scale_dtype=config.scale_dtype,
            scales=config.scales,
            activations=dict(activations),
            kv=config.kv,
        )

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "tensors": [tensor.as_dict() for tensor in self.weights.tensors],
            "at_export": {name: str(scheme) for name, scheme in self.weights.at_export.items()},
            "parts": [part.model_dump(mode="json") for part in self.parts],
            "total": self.total.model_dump(mode="json"),
            "kv": self.config.kv,
            "config": self.config.model_dump(mode="json"),
        }
