"""Attention that stays inside each sample when several lie end to end in one row.

Axes: N tokens of the row, h query heads, g key and value heads, d numbers a head, n tokens of one sample.

Restarting `position_ids` alone make transformers build a block-diagonal mask of N × N, which costs quadratic work over
the whole row. Here each sample runs through transformers' own SDPA by itself, causal and without a mask, on the fast
path of every backend (or `short_attention`'s, where faster): the same sums over the same keys, in N·n instead of N².

    with segmented_attention(model.language_model):
        model(input_ids=row, position_ids=restarting, segments=(812, 97, 1340), use_cache=False)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from stages.artifacts.errors import ModelError
from stages.workshop.training.short_attention import attend_short, is_short

NAME = "bluelm_segments"


@contextmanager
def segmented_attention(model: PreTrainedModel) -> Iterator[None]:
    """Lets a language model take `segments`; afterwards it has its former attention again.

    Raises:
        ModelError: its attention cannot be replaced.
    """
    AttentionInterface.register(NAME, attend_segments)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ModelError(
            f"The attention of {type(model).__name__} cannot be replaced.",
            "Packed samples would see one another.",
            "Train with --set packing=false.",
        )
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend_segments(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention that stays inside each sample (an attention function of transformers).

    Args:
        module: the layer; says how many query heads share a key head.
        query: [1, h, N, d]; [B, h, N, d] without segments.
        key, value: [1, g, N, d]; [B, g, N, d].
        attention_mask: must be None.
        sliding_window: how many positions a token sees at most, itself included; None: all before it.
        segments: tokens of each sample, N together; None: every row is one sample, padded on the right or not at all.

    Returns:
        [1, N, h, d], and no weights.

    Raises:
        ModelError: a mask, or segments that are not those of one row.
    """
    _check(query, attention_mask, segments)
    lengths = [query.shape[2]] if segments is None else list(segments)
    heads = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    found = [_attend(module, parts, sliding_window, dropout, scaling) for parts in heads]  # [1, n, h, d] each
    return torch.cat(found, dim=1), None


def _attend(
    module: nn.Module,
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    sliding_window: int | None,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """One sample: query [1, h, n, d], key and value [1, g, n, d] → [1, n, h, d]."""
    window = _window(heads[0], sliding_window)
    if window is None and not dropout and is_short(heads[0]):
        return attend_short(*heads, scaling=scaling)
    return sdpa_attention_forward(module, *heads, window, dropout=dropout, scaling=scaling)[0]


def _window(query: torch.Tensor, size: int | None) -> torch.Tensor | None:
    """Which keys each query sees [1, 1, n, n], or None where causal attention says it all."""
    length = query.shape[2]
    if size is None or length <= size:
        return None
    distance = torch.arange(length, device=query.device)
    distance = distance[:, None] - distance[None, :]  # [n, n]
    return ((distance >= 0) & (distance < size))[None, None]


def _check(query: torch.Tensor, mask: torch.Tensor | None, segments: Sequence[int] | None) -> None:
    """Raises: ModelError: see `attend_segments`."""
    rows, length = query.shape[0], query.shape[2]
    if mask is None and (segments is None or (rows == 1 and sum(segments) == length)):
        return
    said = "" if segments is None else f" for segments of {sum(segments)} tokens"
    masked = "" if mask is None else " with an attention mask"
    raise ModelError(
        f"Packed attention got {rows} rows of {length} tokens{said}{masked}.",
        "Samples would see one another, or nothing at all.",
        "Pass one row with attention_mask=None, use_cache=False and the length of each sample in segments.",
    )
