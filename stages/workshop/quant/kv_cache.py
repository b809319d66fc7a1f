"""The INT8 KV cache in torch: observed to find its scales, and simulated to see what it costs.

Both are caches that transformers' models fill as usual: `update` gets the new keys (after rotary) and values of a
layer, [batch, kv heads, tokens, head size], and returns all so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from stages.artifacts.errors import ModelError
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales


def fake_quantize(values: torch.Tensor, scale: float) -> torch.Tensor:
    """What is left of keys or values after a trip through INT8: the contract's `int8_kv`, in torch, in float32."""
    # A tensor and not a number: kernels may divide by a number as a product with its rounded inverse.
    step = torch.tensor(scale, dtype=torch.float32, device=values.device)
    stored = torch.clamp(torch.round(values.float() / step), int8_kv.VALUE_MIN, int8_kv.VALUE_MAX)
    return (stored * step).to(values.dtype)


class Int8KVCache(DynamicCache):
    """A cache whose content has been through INT8 with static scales, as in the exported decoder."""

    def __init__(self, scales: KvScales) -> None:
        super().__init__()
        _fill(self, [_Int8Layer(key, value) for key, value in zip(scales.keys, scales.values, strict=True)])


class ObservedCache(DynamicCache):
    """A plain cache that remembers the largest magnitude of each layer's keys and values."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self._observed = [_ObservedLayer() for _ in range(layers)]
        _fill(self, self._observed)

    def largest(self) -> tuple[list[float], list[float]]:
        """Largest |key| and |value| of each layer."""
        return [layer.largest_key for layer in self._observed], [layer.largest_value for layer in self._observed]


def check_layers(config: PretrainedConfig) -> int:
    """Number of decoder layers, all of which must have a full KV cache.

    Raises:
        ModelError: a layer has another kind of cache.
    """
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ModelError(
            f"The language model has layers of kind {', '.join(sorted(kinds))}.",
            "The INT8 cache holds keys and values of full attention only.",
            "Keep the cache float: --kv float32",
        )
    return int(text.num_hidden_layers)


class _Int8Layer(DynamicLayer):
    def __init__(self, key_scale: float, value_scale: float) -> None:
        super().__init__()
        self._scales = key_scale, value_scale

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        key_scale, value_scale = self._scales
        return super().update(
            fake_quantize(key_states, key_scale), fake_quantize(value_states, value_scale), *args, **kwargs
        )


class _ObservedLayer(DynamicLayer):
    def __init__(self) -> None:
        super().__init__()
        self.largest_key = self.largest_value = 0.0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.largest_key = max(self.largest_key, float(key_states.abs().max()))
        self.largest_value = max(self.largest_value, float(value_states.abs().max()))
        return super().update(key_states, value_states, *args, **kwargs)


def _fill(cache: DynamicCache, layers: Sequence[DynamicLayer]) -> None:
    cache.layers = list(layers)
    # Without this a model with more layers than scales would silently get plain layers for the rest.
    cache.layer_class_to_replicate = None
