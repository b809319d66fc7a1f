"""Which parameters learn, and how fast: decided by their names and shapes alone, before any weight is loaded.

Layer-wise decay (Table 8, 0.9): a tower of L layers learns at

    embeddings        layer 0        layer 1              layer L-1, post_layernorm
    peak·0.9^L        peak·0.9^(L-1) peak·0.9^(L-2)   …   peak

With LoRA a line of `trained` that covers factors means the factors: the language model's own weights under it are
frozen. A line that covers none of them (`language_model.lm_head.*`) means what it names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Literal

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.workshop.model.adapter import is_factor
from stages.workshop.training.recipe import LearningRecipe, Trained

PARTS = ("vision_tower", "multi_modal_projector", "language_model")
Method = Literal["adamw", "muon"]
_TEXT = "language_model."
_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class ParameterPlan:
    """What happens to one parameter; frozen when its learning rate is 0."""

    name: str
    shape: tuple[int, ...]
    learning_rate: float
    weight_decay: float
    method: Method

    @property
    def trained(self) -> bool:
        """Whether it learns at all."""
        return self.learning_rate > 0

    @property
    def count(self) -> int:
        """Numbers it holds."""
        return prod(self.shape)

    @property
    def part(self) -> str:
        """The part of the model it belongs to: the first word of its name."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class GroupPlan:
    """Parameters that share learning rate, weight decay and method: one group of the optimizer."""

    learning_rate: float
    weight_decay: float
    method: Method
    names: tuple[str, ...]
    count: int


def plan_parameters(shapes: Mapping[str, Sequence[int]], recipe: LearningRecipe) -> tuple[ParameterPlan, ...]:
    """Decides every parameter of a model.

    Args:
        shapes: parameter name → shape, in the model's order.
        recipe: what it says in `trained` (the first matching line decides), learning rate and weight decay.

    Raises:
        RecipeError: a line that matches nothing, a layer decay where there are no layers, or nothing to train.
    """
    lines = {name: _line(name, recipe.trained) for name in shapes}
    _check(lines, recipe)
    by_factors = {lines[name] for name in shapes if is_factor(name)}
    layers = {line: _layer_count(name for name in shapes if lines[name] == line) for line in set(lines.values())}
    plans = []
    for name, shape in shapes.items():
        index = lines[name]
        rate = 0.0
        if is_factor(name):
            rate = _peak(recipe, index, recipe.lora.learning_rate if recipe.lora else None)
        elif index is not None and not (name.startswith(_TEXT) and index in by_factors):
            rate = _peak(recipe, index)
        if index is not None:
            rate *= recipe.trained[index].layer_decay ** layers_above(name, layers[index])
        # One dimension: biases and the weights of norms.
        decay = recipe.optimizer.weight_decay if len(shape) > 1 else 0.0
        hidden = len(shape) == 2 and not _is_lookup(name) and not is_factor(name)
        method = recipe.optimizer.matrices if hidden else "adamw"
        plans.append(ParameterPlan(name, tuple(shape), rate, decay, method))
    if not any(plan.trained for plan in plans):
        raise RecipeError("The recipe trains nothing.", "All its learning rates are 0.", "Set a learning_rate above 0.")
    return tuple(plans)


def layers_above(name: str, layers: int) -> int:
    """How many of `layers` encoder layers lie above a parameter: 0 for the last layer and all that follows it."""
    found = _LAYER.search(name)
    if found:
        return layers - 1 - int(found.group(1))
    return layers if ".embeddings." in name else 0


def group(plans: Iterable[ParameterPlan]) -> tuple[GroupPlan, ...]:
    """The optimizer's groups of the trained parameters, in the order in which they first appear."""
    members: dict[tuple[float, float, Method], list[ParameterPlan]] = {}
    for plan in plans:
        if plan.trained:
            members.setdefault((plan.learning_rate, plan.weight_decay, plan.method), []).append(plan)
    return tuple(
        GroupPlan(*shared, tuple(plan.name for plan in found), sum(plan.count for plan in found))
        for shared, found in members.items()
    )


def count_by_part(plans: Iterable[ParameterPlan]) -> dict[str, dict[str, int]]:
    """Per part of the model: how many numbers it holds and how many of them are trained."""
    total: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for plan in plans:
        total[plan.part] += plan.count
        trained[plan.part] += plan.count if plan.trained else 0
    return {part: {"parameters": total[part], "trained": trained[part]} for part in total}


def _is_lookup(name: str) -> bool:
    """Tables of vectors and the head: their rows are tokens or positions, so there is no matrix to orthogonalize."""
    return "embed" in name or name.endswith("lm_head.weight")


def _peak(recipe: LearningRecipe, index: int | None, own: float | None = None) -> float:
    """The nearest of: a rate of its own, its line's, the recipe's."""
    line = None if index is None else recipe.trained[index].learning_rate
    return next(rate for rate in (own, line, recipe.learning_rate) if rate is not None)


def _line(name: str, lines: Sequence[Trained]) -> int | None:
    """Index of the first line that matches, or None."""
    return next((index for index, line in enumerate(lines) if fnmatchcase(name, line.parameters)), None)


def _layer_count(names: Iterable[str]) -> int:
    found = [int(match.group(1)) for match in map(_LAYER.search, names) if match]
    return max(found) + 1 if found else 0


def _check(lines: Mapping[str, int | None], recipe: LearningRecipe) -> None:
    problems: list[BluelmError] = []
    parts = ", ".join(f"{part}.*" for part in dict.fromkeys(name.partition(".")[0] for name in lines))
    for index, line in enumerate(recipe.trained):
        names = [name for name, chosen in lines.items() if chosen == index]
        if not names:
            shadowed = any(fnmatchcase(name, line.parameters) for name in lines)
            reason = (
                "Earlier lines take all its parameters." if shadowed else "No parameter of the model has such a name."
            )
            problems.append(
                RecipeError(
                    f"trained: the pattern {line.parameters!r} decides nothing.",
                    f"{reason} What it was meant for would silently not be trained.",
                    f"Remove or mend it; the parts are {parts}.",
                )
            )
        elif line.layer_decay < 1 and not _layer_count(names):
            problems.append(
                RecipeError(
                    f"trained: {line.parameters!r} has a layer_decay of {line.layer_decay}, but holds no layers.",
                    "Every parameter would learn at the peak all the same.",
                    "Remove layer_decay from that line.",
                )
            )
    raise_all(problems)
