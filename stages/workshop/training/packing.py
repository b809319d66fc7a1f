"""Sequence packing: the samples of a step are dealt to its passes, and lie end to end in each of them.

    step: 8 samples, 2 passes    padded                    packed
    ▇▇▇▇▇ ▇▇ ▇▇▇ ▇ │ ▇ ▇▇▇▇ ▇ ▇▇   4×5 + 4×4 positions       10 + 9 positions, no padding

Packing changes how a step is computed, never what it learns from: a step has the same `global_batch` samples, and its
loss is the mean over their learned tokens. So learning rates, steps and the passes over the data of Tables 7 and 8 mean
the same with packing and without (131 k steps of 5760 are 1.2 passes over the paper's 645 M pairs: it counts samples).

A row holds whole samples only and may be longer than `sequence_length`: positions restart with every sample, so that
bounds a sample, not a row. Balanced rows are what keeps all devices busy and memory even.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import torch

from stages.workshop.model.processing import IGNORED
from stages.workshop.training.loss import learned_positions
from stages.workshop.training.samples import Sample


def deal(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Deals samples to rows so that all rows have about the same number of tokens, and none is empty.

    The longest sample goes first, each to the row with the fewest tokens (Graham's LPT rule: the fullest row has at
    most 4/3 of the tokens it must have). A pure function; ties go to the earlier sample and row.

    Args:
        lengths: tokens of each sample, all positive.
        rows: how many rows; no more than samples.

    Returns:
        Indices of the samples of each row, ascending.
    """
    dealt: list[list[int]] = [[] for _ in range(rows)]
    fill = [(0, row) for row in range(rows)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        tokens, row = fill[0]
        dealt[row].append(index)
        heapq.heapreplace(fill, (tokens + lengths[index], row))
    return [sorted(row) for row in dealt]


def lay_out(samples: Sequence[Sample]) -> dict[str, Any]:
    """One row of samples as the model takes it.

    Returns:
        `input_ids`, `labels` and `position_ids` [1, N], `positions` [K], `segments`, the tokens of each sample, and
        `tokens`, N. The first token of a sample is never learned: before it stands another one's last.
    """
    segments = tuple(sample.length for sample in samples)
    input_ids = torch.cat([torch.from_numpy(sample.ids) for sample in samples]).long()  # [N]
    learned = torch.cat([torch.from_numpy(sample.is_answer) for sample in samples])  # [N]
    position_ids = torch.cat([torch.arange(length) for length in segments])  # [N]
    learned = learned & (position_ids > 0)
    labels = torch.where(learned, input_ids, IGNORED)[None]  # [1, N]
    return {
        "input_ids": input_ids[None],
        "labels": labels,
        "position_ids": position_ids[None],
        "positions": learned_positions(labels),
        "segments": segments,
        "tokens": sum(segments),
    }
