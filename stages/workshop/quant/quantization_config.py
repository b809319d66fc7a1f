"""`quantization_config` of a quantized folder's config.json: compressed-tensors' keys, and one of our own.

    quant_method, format, quantization_status, ignore
    config_groups   one per scheme, each with its own `format` and the names of its Linears
    bluelm          what compressed-tensors has no place for: the activations' precision, the KV cache's, what the
                    export quantizes itself (embedding, tied head), rounding method, type of the scales

Traps (compressed-tensors 0.20): `input_activations` would change the forward pass, so INT16 activations stand in our
key; an Embedding or a tied head does not load packed, so both stay float in the file and are quantized at export.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from stages.artifacts.errors import ModelError
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.activations import Activations
from stages.device.contract.int4_blocks import ScaleDtype
from stages.workshop.quant.activation_policy import DEFAULT
from stages.workshop.quant.packed import ScaleFormat
from stages.workshop.quant.policy import Scheme

METHOD_KEY = "bluelm"


class AtExport(Scheme):
    """A scheme that only the exported graph has: the file keeps `tensor` float (a tied head shares the embedding's)."""

    tensor: str


class OwnKeys(RecipeModel):
    """The `bluelm` key.

    Attributes:
        method: how weights were rounded: rtn, gptq, awq, or several, joined by +.
        transforms: what was done to the float weights before, without changing the model's answers.
        scale_dtype: type of `weight_scale` in the file.
        scales: whether INT4 scales lie on a grid per row, so that a block is also INT8 (`int4_blocks`).
        activations: what the inputs of each quantized Linear are rounded to (Sec. 3.4).
        kv: the cache: int8 with the scales of kv_scales.json, or float.
        at_export: modules that stay float in the file and are quantized at export.
    """

    method: str = "rtn"
    transforms: tuple[str, ...] = ()
    scale_dtype: ScaleDtype = "float16"
    scales: Literal["two-level", "free"] = "free"
    activations: dict[str, Activations] = Field(default_factory=dict)
    kv: Literal["int8", "float32"] = "int8"
    at_export: dict[str, AtExport] = Field(default_factory=dict)

    @field_validator("activations", mode="before")
    @classmethod
    def _known(cls, activations: Any) -> Any:
        """Folders of earlier versions name parts and what they are meant for; that says nothing about a Linear."""
        if not isinstance(activations, dict):
            return activations
        return {name: value for name, value in activations.items() if "." in name and value in get_args(Activations)}

    @property
    def scale_format(self) -> ScaleFormat:
        """What scales are rounded to."""
        return ScaleFormat(self.scale_dtype, self.scales == "two-level")

    def activations_of(self, name: str) -> Activations:
        """What the inputs of a Linear are rounded to."""
        return self.activations.get(name, DEFAULT)


def build(stored: Mapping[str, Scheme], linears: Iterable[str], own: OwnKeys) -> dict[str, Any]:
    """The whole `quantization_config`.

    Args:
        stored: scheme of every Linear that is packed in the file.
        linears: names of all Linears of the model.
        own: our key.
    """
    linears = tuple(linears)
    schemes = sorted(set(stored.values()), key=str)
    groups = {
        str(scheme).replace(" ", "_"): _group(scheme, [n for n in linears if stored.get(n) == scheme], linears)
        for scheme in schemes
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name in linears if name not in stored],
        METHOD_KEY: own.model_dump(mode="json"),
    }


def targets(names: Iterable[str], linears: Iterable[str]) -> list[str]:
    """Names as compressed-tensors' targets: one `re:` pattern for all layers where all have the same scheme.

    A pattern (the name with its layer numbers replaced by `\\d+`) is used only if every Linear it matches is among the
    names; else the names stand as they are.
    """
    wanted = set(names)
    patterns: dict[str, None] = {}
    for name in names:
        parts = [r"\d+" if part.isdigit() else re.escape(part) for part in name.split(".")]
        pattern = "^" + r"\.".join(parts) + "$"
        covered = {other for other in linears if re.match(pattern, other)}
        several = len(covered) > 1 and covered <= wanted
        patterns["re:" + pattern if several else name] = None
    return list(patterns)


def read(config: Mapping[str, Any], source: str) -> tuple[dict[str, Any], OwnKeys]:
    """Our own key and the config groups out of a config.json.

    Raises:
        ModelError: not a folder that `bluelm quantize` wrote.
    """
    quantization = config.get("quantization_config") or {}
    if quantization.get("format") != "pack-quantized" or METHOD_KEY not in quantization:
        raise ModelError(
            f"{source} has no quantization_config of bluelm.",
            "Its weights cannot be read as INT4 and INT8.",
            "Make a quantized folder with: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER",
        )
    return quantization["config_groups"], OwnKeys.model_validate(quantization[METHOD_KEY])


def scheme_of(name: str, groups: Mapping[str, Any]) -> Scheme | None:
    """The scheme under which a Linear is stored, or None when it is float."""
    for group in groups.values():
        for target in group["targets"]:
            if target == name or (target.startswith("re:") and re.match(target[3:], name)):
                weights = group["weights"]
                return Scheme(weights=f"int{weights['num_bits']}", group_size=weights["group_size"])
    return None


def _group(scheme: Scheme, names: list[str], linears: tuple[str, ...]) -> dict[str, Any]:
    return {
        "targets": targets(names, linears),
        "format": "pack-quantized",
        "weights": {
            "num_bits": scheme.bits,
            "type": "int",
            "symmetric": True,
            "strategy": "group" if scheme.group_size else "channel",
            "group_size": scheme.group_size,
            "dynamic": False,
        },
        "input_activations": None,
        "output_activations": None,
    }
