"""The inputs of Linears, rounded in torch as the device rounds them: contract/activations.py on float32, bit for bit.

Axes: T tokens, K columns, B block length, G blocks. A model's input of a Linear is [1, T, K].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from stages.device.contract import activations


@dataclass(frozen=True)
class InputRounding:
    """What one Linear's inputs are rounded to.

    Attributes:
        precision: INT8, INT16 in two parts, or half precision.
        block: columns that share a scale where MatMulNBits multiplies; None where a token has one scale.
        compact: with `block`, whether calls of several tokens have one scale a token after all, since prefill expands
            the weights to INT8.
    """

    precision: Literal["int8", "int16", "float16"]
    block: int | None = None
    compact: bool = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [.., T, K] as the device multiplies it, in x's type."""
        if self.precision == "float16":
            return round_half(x)
        if self.block is None or (self.compact and x.shape[-2] > 1):
            return round_rows(x, self.precision)
        if self.precision == "int8":
            return round_blocks(x, self.block)
        return round_block_parts(x, self.block)


def round_rows(x: torch.Tensor, precision: Literal["int8", "int16"]) -> torch.Tensor:
    """`activations.unround(activations.round_rows(x, precision))`."""
    wide = x.float()
    largest = wide.abs().amax(dim=-1, keepdim=True).clamp(min=float(activations.SMALLEST))  # [.., T, 1]
    step = largest * _number(activations.high_step(), x)
    steps = wide / step
    high = _steps(steps)
    if precision == "int16":
        low_step = _number(activations.low_step(), x)
        high = high + _steps((steps - high) / low_step) * low_step
    return (high * step).to(x.dtype)


def round_half(x: torch.Tensor) -> torch.Tensor:
    """`activations.round_half(x)`."""
    return x.float().clamp(-activations.HALF_MAX, activations.HALF_MAX).half().to(x.dtype)


def round_blocks(x: torch.Tensor, block: int) -> torch.Tensor:
    """`activations.round_blocks(x, block)`."""
    blocks = _in_blocks(x.float(), block)
    scale = blocks.abs().amax(dim=-1, keepdim=True) / _number(activations.STEPS, x)  # [.., G, 1]
    rounded = torch.round(blocks / torch.where(scale == 0, torch.ones_like(scale), scale)) * scale
    return rounded.flatten(-2)[..., : x.shape[-1]].to(x.dtype)


def round_block_parts(x: torch.Tensor, block: int) -> torch.Tensor:
    """`activations.round_block_parts(x, block)`."""
    wide = x.float()
    blocks = _in_blocks(wide, block)
    scale = blocks.abs().amax(dim=-1, keepdim=True).clamp(min=float(activations.SMALLEST))  # [.., G, 1]
    step = _number(activations.high_step(), x)
    high = (_steps(blocks / scale / step) * step * scale).flatten(-2)[..., : x.shape[-1]]
    return (round_blocks(high, block) + round_blocks(wide - high, block)).to(x.dtype)


def relative_errors(x: torch.Tensor, precision: Literal["int8", "int16"]) -> torch.Tensor:
    """‖x − rounded x‖ / ‖x‖ of each token that is not zero, [tokens], for x [.., K]."""
    rows = x.reshape(-1, x.shape[-1]).float()
    norms = rows.norm(dim=-1)
    return ((rows - round_rows(rows, precision)).norm(dim=-1) / norms)[norms > 0]


@contextmanager
def rounded_inputs(model: nn.Module, roundings: Mapping[str, InputRounding]) -> Iterator[None]:
    """Rounds the inputs of a model's Linears, by module name, for as long as the block lasts."""
    handles = attach(model, roundings)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attach(model: nn.Module, roundings: Mapping[str, InputRounding]) -> list[Any]:
    """Rounds the inputs of a model's Linears, by module name, until the returned handles are removed."""
    handles = []
    for name, rounding in roundings.items():

        def look(_: nn.Module, inputs: tuple[Any, ...], rounding: InputRounding = rounding) -> tuple[Any, ...]:
            return rounding(inputs[0]), *inputs[1:]

        handles.append(model.get_submodule(name).register_forward_pre_hook(look))
    return handles


def _in_blocks(x: torch.Tensor, block: int) -> torch.Tensor:
    padded = nn.functional.pad(x, (0, -x.shape[-1] % block))
    return padded.unflatten(-1, (-1, block))  # [.., G, B]


def _steps(values: torch.Tensor) -> torch.Tensor:
    """Whole steps as an unsigned byte with zero point 128 holds them: half to even, saturated."""
    return torch.clamp(torch.round(values), -activations.ZERO_POINT, 255 - activations.ZERO_POINT)


def _number(value: Any, like: torch.Tensor) -> torch.Tensor:
    # A tensor and not a number: kernels may divide by a number as a product with its rounded inverse.
    return torch.tensor(float(value), dtype=torch.float32, device=like.device)
