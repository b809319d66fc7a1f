"""Muon over many matrices at once: torch's own steps, from torch's own state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import Muon

from stages.workshop.training import batched_muon
from stages.workshop.training.batched_muon import BatchedMuon, orthogonalize

SHAPES = ((24, 16), (16, 24), (16, 24), (16, 16), (40, 8), (16, 24))


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def groups(made: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": made[:4], "lr": 0.02, "weight_decay": 0.1},
        {"params": made[4:], "lr": 0.05, "weight_decay": 0.0},
    ]


def train(optimizer: torch.optim.Optimizer, made: list[nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        for number, parameter in enumerate(made):
            # One of them is not always learned from.
            parameter.grad = None if number == 2 and seed % 2 else torch.randn_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("most", [1, 800, 1 << 22])
def test_it_steps_as_torch_does(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both iterate in bfloat16: every number of the six steps within 2 % of what it moved, however many go at once."""
    monkeypatch.setattr(batched_muon, "_MOST", most)
    ours, theirs, start = parameters(), parameters(), parameters()
    train(BatchedMuon(groups(ours), momentum=0.9), ours, range(6))
    train(Muon(groups(theirs), momentum=0.9, adjust_lr_fn="match_rms_adamw"), theirs, range(6))
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).abs().max()
        assert moved > 0.01
        assert (one - other).abs().max() < 0.02 * moved


def test_it_goes_on_with_torchs_state() -> None:
    ours, theirs = parameters(), parameters()
    first = Muon(groups(theirs), momentum=0.9, adjust_lr_fn="match_rms_adamw")
    train(first, theirs, range(3))
    second = BatchedMuon(groups(ours), momentum=0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, made in ((first, theirs), (second, ours)):
        train(optimizer, made, range(3, 5))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(second.state[one]["momentum_buffer"], first.state[other]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(5, 12, 20), (3, 20, 12), (1, 9, 9)])
def test_singular_values_end_near_one_and_the_directions_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    found = orthogonalize(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7).float()
    # Jordan's coefficients leave them between about 0.7 and 1.2; the smallest of a square matrix come from near 0.
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3 and (values.min() > 0.6 or shape[1] == shape[2])
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.transpose(1, 2) @ found @ right.transpose(1, 2)
    apart = inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))
    assert apart.abs().max() < 0.05


def test_a_closure_is_refused() -> None:
    made = parameters()
    with pytest.raises(ValueError, match="no closure"):
        BatchedMuon(groups(made), momentum=0.9).step(lambda: 0.0)
