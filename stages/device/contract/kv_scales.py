"""`kv_scales.json`: the static scales of the INT8 KV cache, in onnxruntime-genai's schema.

    {"scales": {"k_scales": [0.031, ...], "v_scales": [0.012, ...]}, "layer_ids": [0, ...]}

Per layer one number, the scale of that layer's whole key (after rotary) or value tensor, or a list of KV heads · head
size numbers, head by head: one for each channel. Scales per head are such a list that repeats in each head, since
neither onnxruntime's GroupQueryAttention nor onnxruntime-genai's builder (`kv_cache_scale_file`) knows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from stages.artifacts.errors import ModelError
from stages.artifacts.typed_json import read_typed_json
from stages.device.contract.names import KV_SCALES_FILE

# Of one layer: a number, or one for each channel of each KV head.
LayerScale = float | tuple[float, ...]


class _Scales(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    k_scales: tuple[LayerScale, ...]
    v_scales: tuple[LayerScale, ...]

    @field_validator("k_scales", "v_scales")
    @classmethod
    def _usable(cls, scales: tuple[LayerScale, ...]) -> tuple[LayerScale, ...]:
        for layer, entry in enumerate(scales):
            for scale in _numbers(entry):
                if not (math.isfinite(scale) and scale > 0):
                    raise ValueError(f"entry {layer} is {scale}; a scale is a finite number above 0")
        lengths = {len(entry) if isinstance(entry, tuple) else 0 for entry in scales}
        if len(lengths) > 1:
            raise ValueError(f"layers have {sorted(lengths)} scales; all have one number, or lists of one length")
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
    def of(cls, keys: Sequence[LayerScale], values: Sequence[LayerScale]) -> KvScales:
        """Scales from one entry per layer for the keys and one for the values."""
        return cls(scales=_Scales(k_scales=tuple(keys), v_scales=tuple(values)), layer_ids=tuple(range(len(keys))))

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layer_ids)

    @property
    def keys(self) -> tuple[LayerScale, ...]:
        """Scale of the keys, per layer."""
        return self.scales.k_scales

    @property
    def values(self) -> tuple[LayerScale, ...]:
        """Scale of the values, per layer."""
        return self.scales.v_scales

    @property
    def channels(self) -> int | None:
        """Scales of a layer's keys; None where all share one number."""
        first = self.keys[0] if self.keys else 1.0
        return len(first) if isinstance(first, tuple) else None

    def arrays(self, layer: int, heads: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scales of a layer's keys and values, [KV heads, 1, head size] or [1, 1, 1]: they fit [.., heads, T, D]."""
        keys, values = (np.asarray(side[layer], np.float32) for side in (self.keys, self.values))
        return tuple(side.reshape(heads if side.size > 1 else 1, 1, -1) for side in (keys, values))  # type: ignore[return-value]

    def write(self, folder: Path) -> None:
        """Writes `kv_scales.json` into a folder."""
        (folder / KV_SCALES_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _numbers(entry: LayerScale) -> tuple[float, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def read_kv_scales(folder: Path, layers: int, channels: int | None = None) -> KvScales:
    """Reads `kv_scales.json` of a quantized or exported model.

    Args:
        folder: the model folder.
        layers: how many decoder layers the model has.
        channels: KV heads · head size; None does not check it.

    Raises:
        ModelError: the file is missing, broken, or for another number of layers.
    """
    path = folder / KV_SCALES_FILE
    why = "Without fitting scales the INT8 KV cache would hold wrong numbers."
    fix = "Make them: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER --force (or do without: --kv float32)"
    scales = read_typed_json(path, KvScales, ModelError, unreadable=why, broken=why, fix=fix)
    if scales.layers != layers:
        raise ModelError(f"{path} has scales for {scales.layers} layers, the model has {layers}.", why, fix)
    if channels is not None and scales.channels not in (None, channels):
        raise ModelError(f"{path} has scales for {scales.channels} channels, the model has {channels}.", why, fix)
    return scales
