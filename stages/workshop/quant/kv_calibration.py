"""Scales of the INT8 KV cache, from the keys (after rotary) and values that real prompts leave in it.

    absmax       the largest magnitude seen: nothing is clipped
    percentile   the magnitude that a share of the values stays within: outliers are clipped, the rest gets finer steps

Each of a whole tensor, of a head, or of a channel of a head. The largest magnitude counts every value; percentile looks
at some tokens of each prompt, evenly spaced. The threshold of the least squared error is no choice: the values that it
clips are those that attention depends on, and on a trained model (stories260K) it cost 0.004 to 0.016 nats a token
where absmax cost 0.004 at most. Axes: K KV heads, T tokens, D head size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from stages.artifacts.recipes import RecipeModel
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales, LayerScale

Method = Literal["absmax", "percentile"]
# What percentile looks at: so many tokens of a prompt, and of all prompts together.
TOKENS_PER_PROMPT = 32
TOKENS = 1024


class KvCalibration(RecipeModel):
    """How scales are chosen.

    Attributes:
        granularity: what shares a scale: a layer's whole key or value tensor, a head, or a channel of a head.
        method: absmax clips nothing; percentile clips outliers.
        percentile: with percentile: the share of values, in percent, that is not clipped.
    """

    granularity: int8_kv.Granularity = "tensor"
    method: Method = "absmax"
    percentile: float = Field(default=99.99, gt=50, le=100)


class KvObserver:
    """Sees keys and values of every layer, and gives scales."""

    def __init__(self, layers: int, how: KvCalibration) -> None:
        self.how = how
        self._sides = [(_Side(), _Side()) for _ in range(layers)]

    def saw(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Takes note of new keys and values [batch, K, T, D] of a layer."""
        for side, states in zip(self._sides[layer], (keys, values), strict=True):
            side.saw(states.detach(), keep=self.how.method != "absmax")

    def largest(self) -> tuple[list[float], list[float]]:
        """Largest |key| and |value| of each layer."""
        keys, values = zip(*self._sides, strict=True)
        return [side.largest_of_all for side in keys], [side.largest_of_all for side in values]

    def scales(self) -> KvScales:
        """Scales of all layers by what was seen.

        Raises:
            ValueError: nothing was seen.
        """
        keys, values = zip(*self._sides, strict=True)
        return KvScales.of([side.scale(self.how) for side in keys], [side.scale(self.how) for side in values])


class _Side:
    """Keys or values of one layer."""

    def __init__(self) -> None:
        self._largest: NDArray[np.float32] | None = None  # [K, D]
        self._kept: list[NDArray[np.float16]] = []  # [tokens, K, D] each
        self._tokens = 0

    @property
    def largest_of_all(self) -> float:
        return 0.0 if self._largest is None else float(self._largest.max())

    def saw(self, states: torch.Tensor, *, keep: bool) -> None:
        rows = states.transpose(1, 2).flatten(0, 1).float()  # [tokens, K, D]
        largest = rows.abs().amax(dim=0).cpu().numpy()
        self._largest = largest if self._largest is None else np.maximum(self._largest, largest)
        if keep and self._tokens < TOKENS:
            places = torch.linspace(0, len(rows) - 1, min(len(rows), TOKENS_PER_PROMPT)).long()
            self._kept.append(rows[places].cpu().numpy().astype(np.float16))
            self._tokens += len(places)

    def scale(self, how: KvCalibration) -> LayerScale:
        if self._largest is None:
            raise ValueError("no keys and values were seen")
        largest = _grouped(self._largest[None], how.granularity).max(axis=0)  # [groups]
        if how.method != "absmax":
            seen = _grouped(np.concatenate(self._kept), how.granularity).astype(np.float32)  # [samples, groups]
            chosen = np.percentile(np.abs(seen), how.percentile, axis=0).astype(np.float32)
            # Values that were all zero where it looked say nothing.
            largest = np.where(chosen > 0, np.minimum(chosen, largest), largest)
        scales = [int8_kv.scale_for(float(value)) for value in largest]
        if how.granularity == "tensor":
            return scales[0]
        return (
            tuple(scales) if how.granularity == "channel" else tuple(np.repeat(scales, self._largest.shape[1]).tolist())
        )


def _grouped(values: NDArray[np.floating], granularity: int8_kv.Granularity) -> NDArray[np.floating]:
    """[tokens, K, D] → [samples, groups]: what shares a scale in one column."""
    tokens, heads, size = values.shape
    if granularity == "tensor":
        return values.reshape(-1, 1)
    if granularity == "channel":
        return values.reshape(tokens, heads * size)
    return values.transpose(0, 2, 1).reshape(tokens * size, heads)
