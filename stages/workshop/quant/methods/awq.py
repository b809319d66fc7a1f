"""AWQ's scales: columns with strong inputs are made larger before rounding, so that less of them is lost.

    s = mean|x|^α,  α ∈ [0, 1) with the least Σ ‖(W − Ŵ(W·diag(s))·diag(1/s))·x‖² over the calibration inputs

α = 0 is plain rounding, so on these inputs it never loses. Axes: R inputs, N output rows, K input columns.
Source: Lin et al., AWQ, arXiv 2306.00978, Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stages.workshop.quant.methods.folding import shared_by_heads
from stages.workshop.quant.methods.settings import AwqSettings
from stages.workshop.quant.packed import ScaleFormat, dequantize, round_to_nearest
from stages.workshop.quant.policy import Scheme

# Columns that no input reached would otherwise get a scale of 0.
SMALLEST_INPUT = 1e-4


def search_scales(
    weights: Sequence[tuple[torch.Tensor, Scheme]],
    inputs: torch.Tensor,
    scales: ScaleFormat,
    settings: AwqSettings,
    heads: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The best scales [K] for Linears that read the same inputs.

    Args:
        weights: the rounded ones of these Linears, float32 [N, K], with their schemes.
        inputs: float32 [R, K].
        scales: what weight scales are rounded to.
        settings: how finely α is searched.
        heads: `FoldPoint.heads`; scales are tried as folding can move them, alike for heads that share a value.
    """
    strength = shared_by_heads(inputs.abs().mean(dim=0), heads)
    strength = (strength / strength.mean().clamp(min=1e-30)).clamp(min=SMALLEST_INPUT)
    best, least = torch.ones_like(strength), float("inf")
    for step in range(settings.grid):
        tried = strength ** (step / settings.grid)
        tried = tried / (tried.max() * tried.min()).sqrt()
        error = sum(_error(weight, scheme, tried, inputs, scales) for weight, scheme in weights)
        if error < least:
            best, least = tried, error
    return best


def _error(
    weight: torch.Tensor, scheme: Scheme, tried: torch.Tensor, inputs: torch.Tensor, scales: ScaleFormat
) -> float:
    rounded = torch.from_numpy(dequantize(round_to_nearest("scaled weight", weight * tried, scheme, scales)))
    return float((inputs @ (weight - rounded / tried).T).double().square().sum())
