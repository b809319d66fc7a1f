"""The ViT's attention with INT8 products in torch, as contract/int8_attention.py defines it.

Axes: T tiles, P positions, N heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stages.device.contract import activations
from stages.device.contract.int8_attention import PROBABILITY_STEPS


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q · kᵀ / √D) · v with rounded factors; all float32 [T, N, P, D]."""
    query_step, key_step, value_step = _step(q, (2, 3)), _step(k, (3,)), _step(v, (2, 3))
    size = torch.tensor(q.shape[-1] ** -0.5, dtype=torch.float32)
    products = _steps(q / query_step) @ _steps(k / key_step).transpose(2, 3)  # [T, N, P, P]
    weights = torch.softmax(products * (key_step * query_step * size).transpose(2, 3), dim=-1)
    weight_step = weights.amax(dim=-1, keepdim=True) * torch.tensor(1 / PROBABILITY_STEPS, dtype=torch.float32)
    rounded = torch.round(weights / weight_step) @ _steps(v / value_step)
    return rounded * value_step * weight_step


class Int8Attention:
    """Takes the place of a SigLIP attention's forward."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """hidden_states [T, P, N·D] → the same shape; the second value stands for attention weights."""
        module: Any = self.module
        heads = (*hidden_states.shape[:-1], -1, module.head_dim)
        q, k, v = (
            part(hidden_states).view(heads).transpose(1, 2).float()
            for part in (module.q_proj, module.k_proj, module.v_proj)
        )
        attended = attend(q, k, v).transpose(1, 2).reshape(hidden_states.shape)
        return module.out_proj(attended.to(hidden_states.dtype)), None


def _step(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    largest = x.abs().amax(dim=dims, keepdim=True).clamp(min=float(activations.SMALLEST))
    return largest * torch.tensor(float(activations.high_step()), dtype=torch.float32)


def _steps(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(torch.round(x), -activations.STEPS, activations.STEPS)
