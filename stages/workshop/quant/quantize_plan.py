"""What `bluelm quantize` would write, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.device.contract.activations import Activations
from stages.workshop.quant.activation_policy import resolve, within_budget
from stages.workshop.quant.plan import WeightPlan
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.recipe import QuantizeConfig
from stages.workshop.quant.report import PartReport, sum_all, sum_parts

if TYPE_CHECKING:
    from stages.workshop.quant.calibration import Calibration


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

    def activations(self, calibration: Calibration | None) -> dict[str, Activations]:
        """What the inputs of every quantized Linear are rounded to, by the policy and what was measured."""
        weights = self.weights
        names = [name for name in (*weights.packed, *weights.at_export) if name in weights.linears]
        errors = {name: calibration.input_error(name, "int8") if calibration else None for name in names}
        chosen = resolve(self.config.activations, names, errors)
        budget = self.config.activation_budget
        return chosen if budget is None else within_budget(chosen, errors, budget)

    def scaled_by_none(self, calibration: Calibration) -> list[str]:
        """Linears that the policy gives to AWQ, and that were rounded to the nearest value: no layer took scales."""
        planned = self.weights.methods
        return [name for name, done in calibration.methods.items() if planned.get(name) == "awq" and done == "rtn"]

    def own_keys(self, activations: Mapping[str, Activations], calibration: Calibration | None = None) -> OwnKeys:
        """Our key of the folder's quantization_config, once it is known what was done."""
        config = self.config
        done = calibration.methods if calibration else {}
        methods = {name: done.get(name, planned) for name, planned in self.weights.methods.items()}
        transforms = [f"rotation {config.rotation}"] if config.rotation != "none" else []
        transforms += [f"smoothing {rule.modules} {rule.alpha:g}" for rule in config.smoothing]
        return OwnKeys(
            method="+".join(sorted(set(methods.values()))) or "rtn",
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
