"""From the tower's patches to the language model's tokens: VILA's `mlp_downsample` block (Sec. 3.1, facts "Connector").

Axes: T tiles, P patches per tile (S·S), S patches per side, s = ceil(S/2), C tower width, H language model width.

Each output token sees the 2×2 patches under it, channels in the order (dy, dx, c); an odd side gets one row and one
column of zeros, right and below:

    patches 3×3           padded 4×4          tokens 2×2
    a b c                 a b | c 0
    d e f        →        d e | f 0     →     [a b d e]  [c 0 f 0]
    g h i                 ----+----
                          g h | i 0           [g h 0 0]  [i 0 0 0]
                          0 0 | 0 0
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.activations import ACT2FN

from stages.workshop.model.configuration import DOWNSAMPLE, BlueLMVConfig


def concat_2x2(patches: torch.Tensor, token_order: str = "row") -> torch.Tensor:
    """Joins every 2×2 patches into one, without any weights.

    Args:
        patches: [T, S·S, C], row by row.
        token_order: `row` gives the tokens row by row, `column` column by column. VILA's two reshapes leave its tokens
            in columns (`DownSampleBlock.flat_square`, which never turns them back), so its weights expect that.

    Returns:
        [T, s·s, 4·C], channels in the order (dy, dx, c).

    Raises:
        ValueError: the patches are not a square (a bug: the tower's grid is always square).
    """
    tiles, count, width = patches.shape
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} patches are no square grid")
    grid = patches.reshape(tiles, side, side, width)  # [T, S, S, C]
    odd = side % DOWNSAMPLE
    grid = nn.functional.pad(grid, (0, 0, 0, odd, 0, odd))  # [T, 2s, 2s, C]
    half = (side + odd) // DOWNSAMPLE
    blocks = grid.reshape(tiles, half, DOWNSAMPLE, half, DOWNSAMPLE, width)  # [T, y, dy, x, dx, C]
    order = (0, 1, 3, 2, 4, 5) if token_order == "row" else (0, 3, 1, 2, 4, 5)
    blocks = blocks.permute(*order)  # [T, y, x, dy, dx, C] or [T, x, y, dy, dx, C]
    return blocks.reshape(tiles, half * half, DOWNSAMPLE * DOWNSAMPLE * width)  # [T, s·s, 4C]


class BlueLMVConnector(nn.Module):
    """Downsampler and projector: `norm → [fuse] → linear_1 → act → linear_2`.

    `mlp_downsample`: LayerNorm(4C), Linear(4C→H), activation, Linear(H→H); the first Linear fuses the four patches.
    With `fuse_linear` a Linear(4C→C) does that and linear_1 is C→H. `none`: linear_1 is C→H and there is no norm.
    """

    def __init__(self, config: BlueLMVConfig) -> None:
        super().__init__()
        width, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        self.token_order = config.token_order
        self.norm: nn.LayerNorm | None = None
        self.fuse: nn.Linear | None = None
        if config.downsampler == "mlp_downsample":
            joined = DOWNSAMPLE * DOWNSAMPLE * width
            self.norm = nn.LayerNorm(joined)
            if config.fuse_linear:
                self.fuse = nn.Linear(joined, width)
            else:
                width = joined
        self.linear_1 = nn.Linear(width, hidden)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches [T, P, C] → image tokens [T, tokens, H]."""
        hidden = patches
        if self.norm is not None:
            hidden = self.norm(concat_2x2(hidden, self.token_order))  # [T, tokens, 4C]
        if self.fuse is not None:
            hidden = self.fuse(hidden)  # [T, tokens, C]
        result: torch.Tensor = self.linear_2(self.act(self.linear_1(hidden)))  # [T, tokens, H]
        return result
