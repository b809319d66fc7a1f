"""What a recipe of `bluelm quantize` may hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.artifacts.recipes import RecipeModel
from stages.workshop.quant.activation_policy import ActivationRule
from stages.workshop.quant.fidelity import FidelityConfig
from stages.workshop.quant.kv_calibration import KvCalibration
from stages.workshop.quant.methods.settings import AwqSettings, GptqSettings, SmoothingRule
from stages.workshop.quant.policy import Rule


class QuantizeConfig(RecipeModel):
    """The configuration of a quantized folder.

    Attributes:
        rules: the policy; the first rule that matches a module decides.
        gptq, awq: settings of these methods.
        smoothing: whose inputs are smoothed (`methods/smoothing.py`); the first rule that matches decides.
        rotation: hadamard turns the language model's residual stream (`methods/rotation.py`).
        seed: of the rotation's signs.
        activations: what the inputs of each Linear are rounded to on the device; the first rule that matches decides.
            INT8 where none does.
        activation_budget: how much rounding may do to inputs of the Linears that the rules leave INT8, as root mean
            square of their relative errors; as few as possible of them get INT16 to keep within it.
        kv: int8 calibrates scales for an INT8 cache, float32 leaves them out.
        kv_scales: what shares a scale of the cache, and how it is chosen.
        scales: two-level puts the scales of INT4 blocks on a grid per row, which prefill needs to expand them to INT8;
            free takes each block's best.
        scale_dtype: type of the weight scales in the file.
        samples: prompts of the corpus that calibrate, pictures, questions and answers together.
        error_samples: on how many of them the errors of every layer's inputs and outputs are measured.
        part: model, or llm for the language model alone as a plain transformers folder.
        dtype: what layers compute in during calibration.
        shard_gb: size of the weight files in 10^9 bytes; one is in memory, twice while it is written.
        measure: what the result costs, on held-out questions of the corpus.
    """

    rules: tuple[Rule, ...] = Field(min_length=1)
    gptq: GptqSettings = Field(default_factory=GptqSettings)
    awq: AwqSettings = Field(default_factory=AwqSettings)
    smoothing: tuple[SmoothingRule, ...] = ()
    rotation: Literal["none", "hadamard"] = "none"
    seed: int = 0
    activations: tuple[ActivationRule, ...] = ()
    scales: Literal["two-level", "free"] = "two-level"
    activation_budget: float | None = Field(default=None, ge=0)
    kv: Literal["int8", "float32"] = "int8"
    kv_scales: KvCalibration = Field(default_factory=KvCalibration)
    scale_dtype: Literal["float16", "float32"] = "float16"
    samples: int = Field(default=64, ge=1)
    error_samples: int = Field(default=8, ge=0)
    part: Literal["model", "llm"] = "model"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    shard_gb: float = Field(default=0.5, gt=0)
    measure: FidelityConfig = Field(default_factory=FidelityConfig)

    @model_validator(mode="after")
    def _bounds_are_measured(self) -> QuantizeConfig:
        if self.error_samples:
            return self
        if any(rule.int16_above is not None for rule in self.activations):
            raise ValueError("error_samples: 0 measures nothing that int16_above could be held against")
        if self.activation_budget is not None:
            raise ValueError("error_samples: 0 measures nothing that activation_budget could be held against")
        return self
