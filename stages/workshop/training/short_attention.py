"""Attention over short rows on a CPU: products and a softmax written out.

torch's fused attention keeps no matrix of probabilities, which pays for long rows; in bfloat16 on a CPU it takes 2.4
times as long as the plain products at 196 patches (RESULTS.md, "The base tower").

Axes: h query heads, g key and value heads, n tokens of one sample, d numbers a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, SiglipVisionModel
from transformers.integrations.sdpa_attention import repeat_kv

# Beyond, the probabilities that the backward pass keeps would be most of the memory.
_FEW_PATCHES = 256
_FEW_TOKENS = 384


@contextmanager
def short_attention(model: PreTrainedModel, device: str, dtype: str) -> Iterator[None]:
    """Within, the towers of a model attend in the way that is faster here; afterwards as before.

    Args:
        model: one with SigLIP towers in it.
        device: where it is trained.
        dtype: in which its products are taken.
    """
    changed = []
    if device == "cpu" and dtype == "bfloat16":
        for module in model.modules():
            if isinstance(module, SiglipVisionModel) and _patches(module) <= _FEW_PATCHES:
                changed.append((module, module.config._attn_implementation))
                module.set_attn_implementation("eager")
    try:
        yield
    finally:
        for module, before in changed:
            module.set_attn_implementation(before)


def is_short(query: torch.Tensor) -> bool:
    """Whether `attend_short` is the faster way for queries [1, h, n, d].

    Rotated queries are float32 also where products are taken in bfloat16 (autocast).
    """
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return query.device.type == "cpu" and (cast or query.dtype == torch.bfloat16) and query.shape[2] <= _FEW_TOKENS


def attend_short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None = None
) -> torch.Tensor:
    """Causal attention of one sample.

    Args:
        query: [1, h, n, d].
        key, value: [1, g, n, d]; every g of them serve h / g query heads.
        scaling: of the products; None: 1 / sqrt(d).

    Returns:
        [1, n, h, d].
    """
    shared = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, shared), repeat_kv(value, shared)  # [1, h, n, d]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)  # [1, h, n, n]
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)  # [n, n]
    found = scores.masked_fill(later, float("-inf")).softmax(-1) @ value  # [1, h, n, d]
    return found.transpose(1, 2)  # [1, n, h, d]


def _patches(tower: SiglipVisionModel) -> int:
    return int((tower.config.image_size // tower.config.patch_size) ** 2)
