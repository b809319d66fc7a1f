"""Two optimizers joined into one: the same steps as apart, also after its state was saved and loaded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stages.artifacts.recipes import load_config
from stages.workshop.training.batched_muon import BatchedMuon
from stages.workshop.training.optimizers import JoinedOptimizer, make_optimizer
from stages.workshop.training.parameters import group, plan_parameters
from stages.workshop.training.recipe import FinetuneRecipe


class Small(nn.Module):
    """A matrix, a bias, a table and a head, by the names that decide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(5, 6)
        self.hidden = nn.Linear(6, 8)
        self.lm_head = nn.Linear(8, 5, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(torch.tanh(self.hidden(self.embed_tokens(ids))))


def make(model: Small) -> torch.optim.Optimizer:
    sets = [
        "trained=[{parameters: '*'}]",
        "learning_rate=0.01",
        "optimizer.matrices=muon",
        "optimizer.weight_decay=0.1",
    ]
    recipe = load_config(FinetuneRecipe, "finetune.yaml", sets=sets)
    plans = plan_parameters({name: tuple(p.shape) for name, p in model.named_parameters()}, recipe)
    assert {plan.name for plan in plans if plan.method == "muon"} == {"hidden.weight"}
    return make_optimizer(dict(model.named_parameters()), group(plans), recipe.optimizer)


def train(model: Small, optimizers: list[torch.optim.Optimizer], steps: int) -> None:
    for step in range(steps):
        loss = nn.functional.cross_entropy(model(torch.arange(5)), (torch.arange(5) + step) % 5)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def test_joined_equals_apart() -> None:
    joined, apart = Small(), Small()
    optimizer = make(joined)
    assert isinstance(optimizer, JoinedOptimizer)
    matrix = BatchedMuon([{"params": [apart.hidden.weight], "lr": 0.01, "weight_decay": 0.1}], momentum=0.95)
    constants = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-6}
    tables = torch.optim.AdamW([apart.embed_tokens.weight, apart.lm_head.weight], weight_decay=0.1, **constants)
    bias = torch.optim.AdamW([apart.hidden.bias], weight_decay=0.0, **constants)
    train(joined, [optimizer], 4)
    train(apart, [matrix, tables, bias], 4)
    for name, weight in joined.state_dict().items():
        torch.testing.assert_close(weight, apart.state_dict()[name], msg=name)


def test_a_schedule_moves_the_parts_too() -> None:
    optimizer = make(Small())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert isinstance(optimizer, JoinedOptimizer)
    assert [part["lr"] for inner in optimizer._parts for part in inner.param_groups] == [0.005] * 3


def test_a_saved_state_goes_on_to_the_same_weights() -> None:
    model = Small()
    optimizer = make(model)
    train(model, [optimizer], 3)
    again = copy.deepcopy(model)
    restored = make(again)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, [optimizer], 3)
    train(again, [restored], 3)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_only_adamw_is_plain_adamw() -> None:
    model = Small()
    recipe = load_config(FinetuneRecipe, "finetune.yaml", sets=["trained=[{parameters: '*'}]"])
    plans = plan_parameters({name: tuple(p.shape) for name, p in model.named_parameters()}, recipe)
    optimizer = make_optimizer(dict(model.named_parameters()), group(plans), recipe.optimizer)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.9, 0.98)


def test_no_closure() -> None:
    with pytest.raises(ValueError, match="closure"):
        make(Small()).step(lambda: 0.0)
