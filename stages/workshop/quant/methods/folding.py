"""Scales between a layer and the one before it: what divides one's outputs multiplies the other's columns.

    norm(x)·g  →  W        =   norm(x)·(g/s)  →  W·diag(s)
    W₁·x       →  W₂       =   diag(1/s)·W₁·x  →  W₂·diag(s)      where nothing but products stands between the two

The function stays what it was; how much rounding costs does not. Axes: K input columns of the consumers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class FoldPoint:
    """A place where scales can be moved.

    Attributes:
        source: the module whose outputs are divided: a norm with a weight, or a Linear.
        consumers: Linears that all read these outputs, and nothing else does.
        heads: of attention's values: heads and key-value heads. Heads that share a value share its scales.
    """

    source: str
    consumers: tuple[str, ...]
    heads: tuple[int, int] | None = None


def decoder_points(layer: nn.Module, heads: int, kv_heads: int) -> tuple[FoldPoint, ...]:
    """Where scales can be moved in a decoder layer of Llama's kind."""
    points = (
        FoldPoint("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        FoldPoint("self_attn.v_proj", ("self_attn.o_proj",), (heads, kv_heads)),
        FoldPoint("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        # The gate only multiplies what up_proj gives.
        FoldPoint("mlp.up_proj", ("mlp.down_proj",)),
    )
    return _present(layer, points)


def tower_points(layer: nn.Module) -> tuple[FoldPoint, ...]:
    """Where scales can be moved in a layer of a SigLIP tower (between fc1 and fc2 stands a GELU: not there)."""
    points = (
        FoldPoint("layer_norm1", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        FoldPoint("self_attn.v_proj", ("self_attn.out_proj",)),
        FoldPoint("layer_norm2", ("mlp.fc1",)),
    )
    return _present(layer, points)


def connector_points(connector: nn.Module) -> tuple[FoldPoint, ...]:
    """Where scales can be moved in the connector: between its norm and the Linear behind it."""
    first = "linear_1" if getattr(connector, "fuse", None) is None else "fuse"
    return _present(connector, (FoldPoint("norm", (first,)),))


def scales_its_weight(norm: nn.Module) -> bool:
    """Whether twice the weight (and bias) is twice the output; Gemma's norms, which add 1, are not so."""
    weight = norm.weight
    assert isinstance(weight, torch.Tensor)
    device = torch.device("cpu")
    inputs = torch.linspace(-1, 2, weight.shape[0], device=device)[None]
    plain = {name: torch.ones(value.shape, device=device) for name, value in norm.named_parameters()}
    double = {name: 2 * value for name, value in plain.items()}
    once, twice = (torch.func.functional_call(norm, values, (inputs,)) for values in (plain, double))
    return bool(torch.allclose(2 * once, twice))


def fold(block: nn.Module, point: FoldPoint, scales: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
    """Moves scales [K] through a point, in place; returns those that were moved.

    A norm's new weight is rounded to the type it will be stored as, and the consumers get what then makes the product
    exact.

    Args:
        block: the module that the point's names are relative to.
        point: where.
        scales: positive [K]; with shared heads the largest of those that share.
        stored: type of the source's parameters in the file.
    """
    source = block.get_submodule(point.source)
    weight = source.weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        if isinstance(source, nn.Linear):
            inner, scales = _of_rows(scales, point.heads), shared_by_heads(scales, point.heads)
            assert len(inner) == len(weight)
            weight /= inner[:, None]
        else:
            rounded = (weight / scales).to(stored).to(weight.dtype)
            scales = torch.where(rounded == 0, torch.ones_like(scales), weight / rounded)
            inner = scales
            weight /= inner
        bias = getattr(source, "bias", None)
        if bias is not None:
            bias /= inner
        for name in point.consumers:
            consumer = block.get_submodule(name).weight
            assert isinstance(consumer, torch.Tensor)
            consumer *= scales
    return scales


def shared_by_heads(scales: torch.Tensor, heads: tuple[int, int] | None) -> torch.Tensor:
    """Scales [K] of a consumer's columns: where several heads read one row of the source, the largest of theirs."""
    if heads is None:
        return scales
    count, kv_count = heads
    grouped = _of_rows(scales, heads).reshape(kv_count, 1, -1)  # [kv, 1, D]
    return grouped.expand(-1, count // kv_count, -1).flatten()


def _of_rows(scales: torch.Tensor, heads: tuple[int, int] | None) -> torch.Tensor:
    """Scales of the source's rows."""
    if heads is None:
        return scales
    count, kv_count = heads
    return scales.reshape(kv_count, count // kv_count, -1).amax(dim=1).flatten()


def _present(module: nn.Module, points: Iterable[FoldPoint]) -> tuple[FoldPoint, ...]:
    """The points whose modules all exist and whose norms scale with their weight."""
    names = dict(module.named_modules())

    def stands(point: FoldPoint) -> bool:
        if not {point.source, *point.consumers} <= names.keys():
            return False
        if not all(isinstance(names[name], nn.Linear) for name in point.consumers):
            return False
        source = names[point.source]
        return isinstance(source, nn.Linear) or scales_its_weight(source)

    return tuple(point for point in points if stands(point))
