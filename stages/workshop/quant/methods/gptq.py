"""GPTQ: columns are rounded one after the other, and each hands its error on to those that are still to come.

With inputs X and H = Σ x·xᵀ, rounding minimizes ‖(W − Ŵ)·X‖² instead of ‖W − Ŵ‖². Column i's error, over the i-th
diagonal entry of the upper Cholesky factor U of H⁻¹, is taken from the later columns times row i of U.

Scales here stay what the device can expand to INT8 (`int4_blocks`): a row's grid is that of the float weight. In the
order of activations, columns with the strongest inputs go first while they can still hand on, so the scales of all
blocks are chosen before; in the order of columns, a block's scale is chosen when its first column's turn comes, for the
weights as they are by then.

Axes: N output rows, K input columns, B block length. Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.quant.methods.scale_search import best_scales, row_grid
from stages.workshop.quant.methods.settings import GptqSettings
from stages.workshop.quant.packed import Quantized, ScaleFormat
from stages.workshop.quant.policy import Scheme

# Errors reach the columns of later batches as one product, not column by column.
COLUMNS_AT_ONCE = 128
MORE_DAMPING = 10.0
LARGEST_DAMPING = 1.0


def quantize(
    name: str,
    weight: torch.Tensor,
    hessian: torch.Tensor,
    scheme: Scheme,
    scales: ScaleFormat,
    settings: GptqSettings,
) -> Quantized:
    """Quantizes a weight [N, K] for inputs with the second moments `hessian` [K, K] (their sum; any scale).

    Columns whose inputs were always 0 are rounded to the nearest value.

    Raises:
        ModelError: the moments are not finite, or so nearly dependent that no damping helps.
        OverflowError: a scale is beyond the range of its type.
    """
    diagonal = hessian.diagonal()
    if not bool(torch.isfinite(hessian).all()):
        raise _bad_inputs(name, "are not finite")
    order = torch.argsort(diagonal, descending=True, stable=True) if settings.act_order else torch.arange(len(diagonal))
    factor = _inverse_factor(name, hessian.double()[order][:, order], settings.damping)
    work = weight.float()[:, order].contiguous()  # [N, K] in processing order
    rounding = _rounding(weight.float(), diagonal.float(), scheme, scales, settings.act_order)
    values = torch.empty_like(work)
    batch = _batch(scheme)
    for start in range(0, work.shape[1], batch):
        end = min(start + batch, work.shape[1])
        inner = factor[start:end, start:end]
        errors = torch.empty_like(work[:, start:end])  # [N, batch]
        for column in range(start, end):
            here = column - start
            rounding.reach(column, work, end)
            scale = rounding.column_scales(int(order[column]))  # [N]
            value = torch.clamp(torch.round(work[:, column] / scale), rounding.smallest, rounding.largest)
            error = (work[:, column] - value * scale) / inner[here, here]
            values[:, column], errors[:, here] = value, error
            work[:, column + 1 : end] -= error[:, None] * inner[here, here + 1 :]
        work[:, end:] -= errors @ factor[start:end, end:]
    integers = torch.empty_like(values)
    integers[:, order] = values
    return rounding.finish(integers)


@dataclass
class _Rounding:
    """Which scale a column has; blocks without one yet get it when their first column is reached."""

    scheme: Scheme
    format: ScaleFormat
    importance: torch.Tensor
    grid: torch.Tensor | None
    scales: torch.Tensor  # [N, G], of INT8 [N, 1]
    fixed: bool

    @property
    def smallest(self) -> int:
        return int4_blocks.VALUE_MIN if self.scheme.group_size else -int8_channels.VALUE_MAX

    @property
    def largest(self) -> int:
        return int4_blocks.VALUE_MAX if self.scheme.group_size else int8_channels.VALUE_MAX

    def reach(self, column: int, work: torch.Tensor, end: int) -> None:
        """Chooses the scale of the block that begins at a column, for its weights as they are now."""
        size = self.scheme.group_size
        if self.fixed or size is None or column % size:
            return
        stop = min(column + size, end)
        chosen = best_scales(work[:, column:stop], size, self.format, self.importance[column:stop], self.grid)
        self.scales[:, column // size] = chosen[:, 0]

    def column_scales(self, column: int) -> torch.Tensor:
        return self.scales[:, column // self.scheme.group_size if self.scheme.group_size else 0]

    def finish(self, values: torch.Tensor) -> Quantized:
        integers = np.ascontiguousarray(values.to(torch.int8).numpy())
        scales = self.scales.numpy()
        if self.scheme.group_size is None:
            return Int8Channels(integers, np.ascontiguousarray(scales[:, 0]))
        return Int4Blocks(integers, scales, self.scheme.group_size)


def _rounding(
    weight: torch.Tensor, importance: torch.Tensor, scheme: Scheme, scales: ScaleFormat, fixed: bool
) -> _Rounding:
    if scheme.group_size is None:
        chosen = torch.from_numpy(int8_channels.channel_scales(weight.numpy(), scales.dtype))[:, None]
        return _Rounding(scheme, scales, importance, None, chosen, True)
    # Where no input was ever seen, errors still count a little, so that a block of such columns has a scale that fits.
    importance = importance / importance.mean().clamp(min=1e-30) + 1e-6
    grid = row_grid(weight, scales)
    if fixed:
        chosen = best_scales(weight, scheme.group_size, scales, importance, grid)
    else:
        chosen = torch.zeros(len(weight), -(-weight.shape[1] // scheme.group_size))
    return _Rounding(scheme, scales, importance, grid, chosen, fixed)


def _batch(scheme: Scheme) -> int:
    """Whole blocks, so that a block's weights are up to date when its scale is chosen."""
    size = scheme.group_size or 1
    return size * max(1, COLUMNS_AT_ONCE // size)


def _inverse_factor(name: str, hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """U, upper triangular with H⁻¹ = Uᵀ·U, of the damped moments; float32 [K, K]. Changes `hessian`."""
    diagonal = hessian.diagonal()
    mean = float(diagonal.mean())
    if mean <= 0:
        raise _bad_inputs(name, "are all zero")
    diagonal[diagonal == 0] = mean
    added = 0.0
    while damping <= LARGEST_DAMPING:
        diagonal += damping * mean - added
        added = damping * mean
        lower, failed = torch.linalg.cholesky_ex(hessian)
        if not int(failed):
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not int(failed):
                return upper.float()
        damping *= MORE_DAMPING
    raise _bad_inputs(name, "depend on each other")


def _bad_inputs(name: str, how: str) -> ModelError:
    return ModelError(
        f"{name}: its inputs {how} on the calibration prompts.",
        "GPTQ weighs errors by these inputs.",
        "Calibrate with more prompts, or give this module method: rtn in a rule of its own.",
    )
