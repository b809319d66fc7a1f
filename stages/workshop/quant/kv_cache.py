"""The INT8 KV cache in torch: observed to find its scales, and simulated to see what it costs.

Both are caches that transformers' models fill as usual: `update` gets the new keys (after rotary) and values of a
layer, [batch, kv heads, tokens, head size], and returns all so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from stages.artifacts.errors import ModelError
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales
from stages.workshop.quant.kv_calibration import KvCalibration, KvObserver


def fake_quantize(values: torch.Tensor, scale: int8_kv.Scale | torch.Tensor) -> torch.Tensor:
    """What is left of keys or values after a trip through INT8: the contract's `int8_kv`, in torch, in float32."""
    # A tensor and not a number: kernels may divide by a number as a product with its rounded inverse.
    step = torch.as_tensor(scale, dtype=torch.float32, device=values.device)
    stored = torch.clamp(torch.round(values.float() / step), int8_kv.VALUE_MIN, int8_kv.VALUE_MAX)
    return (stored * step).to(values.dtype)


class Int8KVCache(DynamicCache):
    """A cache whose content has been through INT8 with static scales, as in the exported decoder."""

    def __init__(self, scales: KvScales) -> None:
        super().__init__()
        self._int8_layers = [_Int8Layer(scales, layer) for layer in range(scales.layers)]
        _fill(self, self._int8_layers)

    @contextmanager
    def compact(self) -> Iterator[None]:
        """While the block lasts, new keys and values are seen as they were before the cache rounds them, as in compact
        prefill, which hands them over when their layer ends."""
        self._see_floats(True)
        try:
            yield
        finally:
            self._see_floats(False)

    def _see_floats(self, seen: bool) -> None:
        for layer in self._int8_layers:
            layer.sees_floats = seen


class ObservedCache(DynamicCache):
    """A plain cache that remembers what scales are chosen by: the largest magnitudes, and with some methods more."""

    def __init__(self, layers: int, observer: KvObserver | None = None) -> None:
        super().__init__()
        self.observer = observer or KvObserver(layers, KvCalibration())
        _fill(self, [_ObservedLayer(self.observer, layer) for layer in range(layers)])

    def largest(self) -> tuple[list[float], list[float]]:
        """Largest |key| and |value| of each layer."""
        return self.observer.largest()


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
    def __init__(self, scales: KvScales, layer: int) -> None:
        super().__init__()
        self._scales, self._layer = scales, layer
        self.sees_floats = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new = key_states, value_states
        rounded = [
            fake_quantize(states, torch.from_numpy(scale).to(states.device))
            for states, scale in zip(new, self._scales.arrays(self._layer, key_states.shape[1]), strict=True)
        ]
        held = super().update(*rounded, *args, **kwargs)
        if not self.sees_floats:
            return held
        past = held[0].shape[-2] - key_states.shape[-2]
        keys, values = (torch.cat([all_[..., :past, :], one], dim=-2) for all_, one in zip(held, new, strict=True))
        return keys, values


class _ObservedLayer(DynamicLayer):
    def __init__(self, observer: KvObserver, layer: int) -> None:
        super().__init__()
        self._observer, self._layer = observer, layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._observer.saw(self._layer, key_states, value_states)
        return super().update(key_states, value_states, *args, **kwargs)


def _fill(cache: DynamicCache, layers: Sequence[DynamicLayer]) -> None:
    cache.layers = list(layers)
    # Without this a model with more layers than scales would silently get plain layers for the rest.
    cache.layer_class_to_replicate = None
