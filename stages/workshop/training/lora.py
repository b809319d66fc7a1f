"""LoRA in a stage: the language model learns through small factors; its own weights stay as they are (ours; peft).

The checkpoint at the end is like any other: factors merged into the weights, and beside it `adapter/`, peft's own
folder. With `merge: false` they stay apart: an artifact of kind `adapter`, which `bluelm adopt` merges later.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from stages.artifacts.errors import RecipeError
from stages.artifacts.kinds import Kind
from stages.workshop.model.adapter import (
    ADAPTER_FOLDER,
    AdapterShape,
    attach_adapter,
    has_adapter,
    linears_in_layers,
    plain_weights,
    remove_adapter,
    write_adapter,
)
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.training.recipe import LoraRecipe, TrainRecipe


def artifact_kind(recipe: TrainRecipe) -> Kind:
    """What a stage writes: a checkpoint, or one whose language model needs its adapter."""
    return "adapter" if recipe.lora is not None and not recipe.lora.merge else "checkpoint"


def attach(model: BlueLMVForConditionalGeneration, recipe: TrainRecipe) -> None:
    """Puts the factors on a model, if the recipe asks for them.

    Raises:
        RecipeError: a target that is no Linear of the language model's layers.
    """
    lora = recipe.lora
    if lora is None:
        return
    _check_targets(lora, (name for name, _ in model.named_parameters() if name.startswith("language_model.")))
    attach_adapter(model, AdapterShape(lora.rank, lora.alpha, lora.dropout, lora.targets), recipe.seed)


def settle(
    model: BlueLMVForConditionalGeneration,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
    *,
    apart: bool = False,
) -> dict[str, torch.Tensor] | None:
    """Writes the factors beside the checkpoint, then leaves the model without them.

    Args:
        model: trained; without factors nothing is done.
        folder: of the checkpoint.
        weights: whole weights of a sharded model; None where the model itself has them.
        apart: the weights stay as they were before the factors; else the factors are merged into them.

    Returns:
        `weights` by the names of a model without factors; None where there were none.
    """
    if not has_adapter(model):
        return weights
    write_adapter(model, folder / ADAPTER_FOLDER, weights)
    plain = None if weights is None else plain_weights(model, weights, merge=not apart)
    remove_adapter(model, merge=not apart and weights is None)
    return plain


def _check_targets(lora: LoraRecipe, names: Iterable[str]) -> None:
    known = linears_in_layers(names)
    unknown = [target for target in lora.targets if target not in known]
    if unknown:
        raise RecipeError(
            f"lora.targets: the language model's layers have no {', '.join(unknown)}.",
            "What it was meant for would silently not learn.",
            f"Choose from {', '.join(known)}.",
        )
