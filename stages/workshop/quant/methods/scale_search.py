"""The scale of each INT4 block with the least error, where errors of some columns weigh more than those of others.

`int4_blocks.block_scales` tries a few scales and takes all columns alike. With calibration there is more to go by: the
mean square of a column's inputs says what its errors cost, and all scales there are can be tried.

Axes: N output rows, K input columns, B block length, G = ceil(K/B) blocks per row.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from stages.device.contract import int4_blocks
from stages.device.contract.scale_rounding import grid_scales, store_scales
from stages.workshop.quant.packed import ScaleFormat

# Of scales without a grid: what max/7 and signed-max/-8 are multiplied with.
FACTORS = tuple(0.7 + 0.025 * step for step in range(15))


def row_grid(weight: torch.Tensor, scales: ScaleFormat) -> torch.Tensor | None:
    """The channel scale [N, 1] whose multiples the scales of a row shall be; None where scales are free.

    Raises:
        OverflowError: a scale is beyond the range of its type.
    """
    if not scales.two_level:
        return None
    largest = weight.abs().amax(dim=1).numpy()
    reach = -int4_blocks.VALUE_MIN * int4_blocks.STEP_MAX
    grid = grid_scales(largest, reach, int4_blocks.CHANNEL_BITS, int4_blocks.STEP_MAX, scales.dtype)
    return torch.from_numpy(grid)[:, None]


def best_scales(
    weight: torch.Tensor, block: int, scales: ScaleFormat, importance: torch.Tensor, grid: torch.Tensor | None
) -> torch.Tensor:
    """The scale of each block with the smallest sum of importance · (w − ŵ)².

    Args:
        weight: float32 [N, K], finite.
        block: columns per block; a last block that is cut short counts as filled with zeros.
        scales: what scales are rounded to.
        importance: [K], what a squared error in each column costs.
        grid: `row_grid` of the whole weight.

    Returns:
        float32 [N, G], as the file holds them.

    Raises:
        OverflowError: a scale is beyond the range of its type.
    """
    missing = -weight.shape[1] % block
    blocks = nn.functional.pad(weight, (0, missing)).unflatten(1, (-1, block))  # [N, G, B]
    costs = nn.functional.pad(importance.float(), (0, missing)).unflatten(0, (-1, block))  # [G, B]
    best = least = None
    for candidate in _candidates(blocks, scales, grid):
        wide = candidate[..., None]
        values = torch.clamp(torch.round(blocks / wide), int4_blocks.VALUE_MIN, int4_blocks.VALUE_MAX)
        error = ((values * wide - blocks).square_() * costs).sum(dim=-1)  # [N, G]
        if best is None or least is None:
            best, least = candidate, error
        else:
            better = error < least
            best, least = torch.where(better, candidate, best), torch.where(better, error, least)
    assert best is not None
    empty = blocks.abs().amax(dim=-1) == 0
    return torch.where(empty, torch.ones_like(best) if grid is None else grid.expand_as(best), best)


def _candidates(blocks: torch.Tensor, scales: ScaleFormat, grid: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """Scales [N, G] to try: every step of the grid in both signs, or multiples of the two that fit the extremes."""
    largest = blocks.abs().amax(dim=-1)  # [N, G]
    if grid is not None:
        for step in range(int4_blocks.STEP_MAX, 0, -1):
            for sign in (1, -1):
                yield (grid * (sign * step)).expand_as(largest)
        return
    where = blocks.abs().argmax(dim=-1, keepdim=True)
    extreme = blocks.gather(-1, where)[..., 0].numpy()
    for reach in (int4_blocks.VALUE_MAX, int4_blocks.VALUE_MIN):
        for factor in FACTORS:
            yield torch.from_numpy(store_scales(extreme * factor, reach, scales.dtype))
