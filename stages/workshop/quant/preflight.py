"""What can be known to go wrong before hours of work: weights that are no numbers, methods that no prompt can serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.artifacts.errors import BluelmError, DataError, ModelError, RecipeError, UsageError
from stages.workshop.quant.methods.settings import SmoothingRule
from stages.workshop.quant.packed import row_chunks
from stages.workshop.quant.plan import WeightPlan
from stages.workshop.quant.tensor_files import TensorSource

if TYPE_CHECKING:
    import torch

TOWER_LAYERS = "vision_tower.encoder.layers."
TOWER, CONNECTOR = "vision_tower.", "multi_modal_projector."
# Linears whose inputs the layer before can take scales of: the consumers of `methods/folding.py`.
SMOOTHED = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1")
SMOOTHED_IN_CONNECTOR = ("fuse", "linear_1")


def bad_weights(source: TensorSource, plan: WeightPlan) -> list[BluelmError]:
    """Float tensors that will be written and hold values which are not finite. Reads all weights once."""
    counts = {tensor.name: _bad_values(source.read(tensor.name)) for tensor in plan.tensors}
    return [
        ModelError(
            f"{name} holds {count} values that are not finite.",
            "They have no integer form, and a model with them answers nonsense.",
            "Take a checkpoint from before the training diverged.",
        )
        for name, count in counts.items()
        if count
    ]


def method_problems(
    plan: WeightPlan, smoothing: Sequence[SmoothingRule], tower_layers: int, *, prompts: bool
) -> list[BluelmError]:
    """Methods and smoothing rules that cannot work.

    Args:
        plan: what becomes of every module.
        smoothing: the rules.
        tower_layers: how many of the tower's layers are run.
        prompts: whether there will be any.
    """
    problems: list[BluelmError] = []
    strict = {name: method for name, method in plan.methods.items() if method != "rtn"}
    first = next(iter(strict), None)
    if not prompts and (first is not None or smoothing):
        what = f"{first} would be rounded by {strict[first]}" if first is not None else "inputs would be smoothed"
        problems.append(
            UsageError(
                f"--data is missing: {what}.",
                "That looks at the inputs which real prompts give a layer.",
                "Give a corpus (bluelm data render makes one), or a recipe without it: --recipe quantize.yaml",
            )
        )
    for name, method in strict.items():
        if not reached(name, tower_layers):
            problems.append(
                RecipeError(
                    f"{name} would be rounded by {method}, and no prompt passes it.",
                    f"{method} looks at the inputs of a layer.",
                    f"Give it a rule of its own before that one: modules: {name}, weights: int8",
                )
            )
    for index, rule in enumerate(smoothing, start=1):
        if not any(rule.matches(name) for name in plan.linears):
            problems.append(
                RecipeError(
                    f"smoothing, rule {index}, {rule.modules!r}, matches no Linear of this model.",
                    "What it was meant for would silently keep its outliers.",
                    "Mend the pattern or remove the rule.",
                )
            )
        elif not any(rule.matches(name) and takes_scales(name, tower_layers) for name in plan.linears):
            problems.append(
                RecipeError(
                    f"smoothing, rule {index}, {rule.modules!r}, matches no Linear whose inputs can be smoothed.",
                    "Scales have to go into the norm or Linear before, and there is none behind which nothing but "
                    "products stands.",
                    f"Remove the rule, or name others: {', '.join((*SMOOTHED, *SMOOTHED_IN_CONNECTOR))}",
                )
            )
    return problems


def takes_scales(name: str, tower_layers: int) -> bool:
    """Whether the layer before a Linear can take scales of its inputs."""
    known = SMOOTHED_IN_CONNECTOR if name.startswith(CONNECTOR) else SMOOTHED
    return reached(name, tower_layers) and name.rpartition(".")[2] in known


def reached(name: str, tower_layers: int) -> bool:
    """Whether prompts pass a Linear: not the tower's pooling head, nor layers behind the one whose output is used."""
    if name.startswith(TOWER_LAYERS):
        return int(name.removeprefix(TOWER_LAYERS).split(".")[0]) < tower_layers
    return not name.startswith(TOWER)


def picture_problems(pictures: Sequence[int]) -> list[BluelmError]:
    """Prompts none of which has a picture; each is given by its number of pictures."""
    if not pictures or any(pictures):
        return []
    return [
        DataError(
            f"None of the {len(pictures)} calibration prompts has a picture.",
            "Image tokens are most of what the model reads; scales chosen without them do not fit them.",
            "Give a corpus with pictures: --data CORPUS (bluelm data render makes one)",
        )
    ]


def _bad_values(tensor: torch.Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    rows = tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1, 1)
    return sum(int((~rows[part].isfinite()).sum()) for part in row_chunks(len(rows), max(1, rows.shape[1])))
