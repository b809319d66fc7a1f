"""When training goes wrong: a loss that is no number, or one far above what was usual."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from stages.artifacts.errors import ModelError

# Losses below this count as this: where nearly everything is learned, a hard batch is no spike.
_FLOOR = 0.1
_GENTLER = "lower learning_rate, raise warmup_steps, or train in float32 (--dtype float32)"


def find_divergence(loss: float, grad_norm: float, usual: float | None, factor: float | None) -> str | None:
    """What is wrong with a step whose gradients are known, before it moves any weight; None where nothing is.

    Args:
        loss: of the step.
        grad_norm: of its gradients, before they are cut.
        usual: median loss of the steps before it; None where there are too few.
        factor: how many times that is a spike; None: nothing is.
    """
    if not math.isfinite(loss):
        return f"The loss became {loss}"
    if not math.isfinite(grad_norm):
        return f"The gradient's norm became {grad_norm}"
    if usual is not None and factor is not None and loss > factor * max(usual, _FLOOR):
        return f"The loss jumped to {loss:.4g}, {loss / max(usual, _FLOOR):.1f} times what was usual,"
    return None


class DivergedError(ModelError):
    """A step that would have spoilt the weights. They are those of before it, and a state of them was written.

    Args:
        reason: what was found.
        step: the step, counted from 1.

    Attributes:
        weights: whole weights of before it in the main process, where the model holds only a share of them.
    """

    def __init__(self, reason: str, step: int) -> None:
        self.reason = reason
        self.step = step
        self.weights: dict[str, torch.Tensor] | None = None
        super().__init__(
            f"{reason} at step {step}.",
            "The step would have spoilt every weight that it moves; it was not taken.",
            f"{_GENTLER[0].upper()}{_GENTLER[1:]}.",
        )

    def advised(self, folder: Path) -> DivergedError:
        """The same with what to do, where a checkpoint of the weights before the step lies in a folder."""
        if self.step > 1:
            self.fix = f"Start from the weights before it, {folder}, with another --out, and {_GENTLER}."
        if "jumped" in self.reason:
            self.fix += " Or go on past it: the same command with --set execution.spike_factor=null."
        return self
