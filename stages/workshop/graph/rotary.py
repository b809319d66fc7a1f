"""Tables of the rotary embedding: cosines and sines of every position, as transformers computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stages.workshop.graph.linear import Floats

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class RotaryTables(NamedTuple):
    """cos and sin, float32 [positions, head_dim / 2]."""

    cos: Floats
    sin: Floats


def rotary_tables(config: PretrainedConfig, positions: int) -> RotaryTables:
    """The tables of a language model, rotary scaling (linear, llama3, yarn) included.

    Source: transformers' LlamaRotaryEmbedding, which Mistral, Qwen2, Qwen3 and SmolLM3 share.
    """
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    with torch.no_grad():
        places = torch.arange(positions).unsqueeze(0)  # [1, positions]
        cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), places)  # [1, positions, head_dim], both halves alike
    half = cos.shape[-1] // 2
    return RotaryTables(cos[0, :, :half].contiguous().numpy(), sin[0, :, :half].contiguous().numpy())
