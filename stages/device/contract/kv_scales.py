"""`kv_scales.json`: the static scales of the INT8 KV cache, in onnxruntime-genai's schema.

    {"scales": {"k_scales": [0.031, ...], "v_scales": [0.012, ...]}, "layer_ids": [0, ...]}

One number per layer: the scale of that layer's whole key (after rotary) or value tensor.
"""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from stages.artifacts.errors import ModelError
from stages.artifacts.typed_json import read_typed_json
from stages.device.contract.names import KV_SCALES_FILE


class _Scales(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    k_scales: tuple[float, ...]
    v_scales: tuple[float, ...]

    @field_validator("k_scales", "v_scales")
    @classmethod
    def _usable(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        for layer, scale in enumerate(scales):
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"entry {layer} is {scale}; a scale is a finite number above 0")
        return scales


class KvScales(BaseModel):
    """The whole of `kv_scales.json`: layer n of the decoder has `scales.k_scales[n]` and `scales.v_scales[n]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scales: _Scales
    layer_ids: tuple[int, ...]

    @model_validator(mode="after")
    def _one_per_layer(self) -> KvScales:
        counts = len(self.scales.k_scales), len(self.scales.v_scales), len(self.layer_ids)
        if len(set(counts)) != 1:
            raise ValueError("{} key scales, {} value scales and {} layer ids".format(*counts))
        if self.layer_ids != tuple(range(len(self.layer_ids))):
            raise ValueError(f"layer ids {list(self.layer_ids)} are not 0, 1, 2, …")
        return self

    @classmethod
    def of(cls, keys: tuple[float, ...], values: tuple[float, ...]) -> KvScales:
        """Scales from one number per layer for the keys and one for the values."""
        return cls(scales=_Scales(k_scales=keys, v_scales=values), layer_ids=tuple(range(len(keys))))

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layer_ids)

    @property
    def keys(self) -> tuple[float, ...]:
        """Scale of the keys, per layer."""
        return self.scales.k_scales

    @property
    def values(self) -> tuple[float, ...]:
        """Scale of the values, per layer."""
        return self.scales.v_scales

    def write(self, folder: Path) -> None:
        """Writes `kv_scales.json` into a folder."""
        (folder / KV_SCALES_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_kv_scales(folder: Path, layers: int) -> KvScales:
    """Reads `kv_scales.json` of a quantized or exported model.

    Args:
        folder: the model folder.
        layers: how many decoder layers the model has.

    Raises:
        ModelError: the file is missing, broken, or for another number of layers.
    """
    path = folder / KV_SCALES_FILE
    why = "Without fitting scales the INT8 KV cache would hold wrong numbers."
    fix = "Make them: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER --force (or do without: --kv float32)"
    scales = read_typed_json(path, KvScales, ModelError, unreadable=why, broken=why, fix=fix)
    if scales.layers != layers:
        raise ModelError(f"{path} has scales for {scales.layers} layers, the model has {layers}.", why, fix)
    return scales
