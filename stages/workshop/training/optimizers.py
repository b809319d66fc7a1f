"""The optimizer of a stage: AdamW for everything (the paper's), or Muon for the hidden matrices and AdamW for the rest.

Muon orthogonalizes the momentum of a matrix before it is applied; scaled to AdamW's step size, it takes the same
learning rates. From random weights it needs far fewer steps. Source: torch.optim.Muon; Liu et al., arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from stages.workshop.training.batched_muon import BatchedMuon
from stages.workshop.training.parameters import GroupPlan
from stages.workshop.training.recipe import OptimizerRecipe


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], groups: Sequence[GroupPlan], recipe: OptimizerRecipe
) -> Optimizer:
    """One group per learning rate, weight decay and method.

    Args:
        parameters: the model's, by name.
        groups: which of them learn, and how.
        recipe: the constants.
    """
    parts: list[Optimizer] = []
    if matrices := _groups(parameters, groups, "muon"):
        parts.append(BatchedMuon(matrices, momentum=recipe.momentum))
    if others := _groups(parameters, groups, "adamw"):
        parts.append(AdamW(others, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, fused=True))
    return parts[0] if len(parts) == 1 else JoinedOptimizer(parts)


class JoinedOptimizer(Optimizer):
    """Several optimizers over different parameters as one: one list of groups, one state, one step.

    Args:
        parts: they share their groups and their state with this one.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self._parts = tuple(parts)
        super().__init__([group for part in parts for group in part.param_groups], defaults={})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every part."""
        if closure is not None:
            raise ValueError("a joined optimizer takes no closure")
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state over, and shares it with the parts again: loading makes new groups and a new state."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end


def _groups(parameters: Mapping[str, nn.Parameter], groups: Iterable[GroupPlan], method: str) -> list[dict[str, Any]]:
    return [
        {
            "params": [parameters[name] for name in group.names],
            "lr": group.learning_rate,
            "weight_decay": group.weight_decay,
        }
        for group in groups
        if group.method == method
    ]
