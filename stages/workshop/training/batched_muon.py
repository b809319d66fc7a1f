"""torch's Muon with all matrices of one shape orthogonalized together.

A small model has dozens of small matrices, and torch takes fifteen products of each, one after the other: on two CPU
cores that was a third of a training step (RESULTS.md, "The base tower"). Taken together they are fifteen products for
each shape. The state is torch's, so that either optimizer goes on with the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Muon

# Numbers in what is orthogonalized at once: large matrices gain nothing, and their copies would cost memory.
_MOST = 1 << 22
_NEWTON_SCHULZ = "ns_coefficients", "ns_steps", "eps"


class BatchedMuon(Muon):
    """Muon with Nesterov's momentum and steps of AdamW's size (`match_rms_adamw`); arXiv 2502.16982."""

    def __init__(self, params: Any, momentum: float) -> None:
        super().__init__(params, momentum=momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over all groups."""
        if any(isinstance(parameter, DTensor) for group in self.param_groups for parameter in group["params"]):
            return super().step(closure)  # shards of a matrix cannot be stacked
        if closure is not None:
            raise ValueError("a batched Muon takes no closure")
        for group in self.param_groups:
            self._step_group(group)
        return None

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters: list[torch.Tensor] = []
        gradients: list[torch.Tensor] = []
        moments: list[torch.Tensor] = []
        self._init_group(group, parameters, gradients, moments)
        if not parameters:
            return
        torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
        wanted = torch._foreach_lerp(gradients, moments, group["momentum"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        constants = [group[name] for name in _NEWTON_SCHULZ]
        for places in _alike(parameters):
            updates = orthogonalize(torch.stack([wanted[place] for place in places]), *constants)  # [m, rows, cols]
            rate = group["lr"] * 0.2 * max(updates.shape[1:]) ** 0.5
            for place, update in zip(places, updates, strict=True):
                parameters[place].add_(update, alpha=-rate)


def orthogonalize(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Matrices [m, rows, cols] with all their singular values moved near 1, in bfloat16.

    Args:
        matrices: of one shape.
        coefficients, steps: of the Newton-Schulz iteration x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x.
        eps: least norm that is divided by.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices  # [m, short, long]
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # [m, 1, 1]
    x = (x / norms.clamp(min=eps)).to(torch.bfloat16)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)  # [m, short, short]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def _alike(parameters: Sequence[torch.Tensor]) -> Iterator[list[int]]:
    """Places of the parameters, those of one shape together, at most `_MOST` numbers at once."""
    shapes: dict[torch.Size, list[int]] = {}
    for place, parameter in enumerate(parameters):
        shapes.setdefault(parameter.shape, []).append(place)
    for shape, places in shapes.items():
        together = max(_MOST // shape.numel(), 1)
        for start in range(0, len(places), together):
            yield places[start : start + together]
