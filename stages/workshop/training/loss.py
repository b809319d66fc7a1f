"""The training loss: cross-entropy of the answers' tokens, computed at the positions that are learned and nowhere else.

Axes: B samples, L tokens, K positions learned by any sample of the batch, V vocabulary.

With a vocabulary of 122 753 the logits of 4096 positions take 2 GB a sample in float32, while an answer is a few
tokens; the head therefore runs on those K positions only. Source of the shift: transformers' `ForCausalLMLoss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stages.workshop.model.processing import IGNORED


def learned_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions whose next token is learned by any sample: labels [B, L] → [K], ascending."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)  # [K]


def normalize_tiles(tiles: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Tiles uint8 [T, 3, S, S] → float32 on the same device, to the bit as `stages.device.imaging.crop.normalize`."""
    deviation = 255.0 * torch.tensor(std, dtype=torch.float64)  # [3]
    factor = (1.0 / deviation).to(tiles.device, torch.float32)
    shift = (-255.0 * torch.tensor(mean, dtype=torch.float64) / deviation).to(tiles.device, torch.float32)
    return tiles.to(torch.float32).mul_(factor[:, None, None]).add_(shift[:, None, None])  # [T, 3, S, S]


def answer_loss(
    model: nn.Module, inputs: dict[str, Any], labels: torch.Tensor, positions: torch.Tensor, items: torch.Tensor | int
) -> torch.Tensor:
    """Summed cross-entropy of the learned tokens over `items`: the mean loss when `items` counts the whole step.

    Args:
        model: the whole model.
        inputs: its inputs without labels.
        labels: [B, L], -100 where nothing is learned.
        positions: [K], see `learned_positions`.
        items: learned tokens of all batches of the step, so that accumulation changes nothing.
    """
    logits = model(**inputs, logits_to_keep=positions, use_cache=False).logits  # [B, K, V]
    targets = labels[:, positions + 1]  # [B, K]
    total = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / items
