"""SmoothQuant's scales: outliers in a Linear's inputs are moved into its weights, where they cost less.

    s = max|x|^α / max|w|^(1−α)  per input column

Inputs are divided by it (in the norm or Linear before) and columns multiplied. Only worth it where inputs are rounded
to INT8. Axes: K input columns. Source: Xiao et al., SmoothQuant, arXiv 2211.10438, Eq. 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SMALLEST = 1e-5


def smoothing_scales(largest_inputs: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float) -> torch.Tensor:
    """Scales [K] of Linears that read the same inputs.

    Args:
        largest_inputs: max|x| per column [K] on the calibration prompts.
        weights: of all these Linears, [N, K].
        alpha: see `SmoothingRule`.
    """
    largest_weights = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)  # [K]
    inputs = largest_inputs.clamp(min=SMALLEST)
    scales = inputs**alpha / largest_weights.clamp(min=SMALLEST) ** (1 - alpha)
    # A column that no input reached keeps what it has.
    return torch.where(largest_inputs > 0, scales.clamp(min=SMALLEST), torch.ones_like(scales))
