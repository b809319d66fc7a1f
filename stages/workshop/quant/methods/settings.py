"""What a recipe may say about methods; without torch, so that a command line is read fast."""

from __future__ import annotations

from pydantic import Field

from stages.artifacts.recipes import RecipeModel
from stages.workshop.quant.policy import ModuleRule


class GptqSettings(RecipeModel):
    """What GPTQ does.

    Attributes:
        damping: part of the mean diagonal of H that is added to it, against inputs that are nearly dependent.
        act_order: the columns with the strongest inputs first.
    """

    damping: float = Field(default=0.01, gt=0, le=1)
    act_order: bool = True


class AwqSettings(RecipeModel):
    """What AWQ does.

    Attributes:
        grid: how many α are tried.
    """

    grid: int = Field(default=20, ge=1)


class SmoothingRule(ModuleRule):
    """Inputs of these Linears are smoothed where the layer before can take the scales.

    Attributes:
        alpha: how much of the difficulty goes into the weights: 0 none, 1 all.
    """

    alpha: float = Field(default=0.5, ge=0, le=1)
