"""The modules of a model that hold matrices: names, kinds and shapes, from its configuration alone (no weights)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.errors import ModelError
from stages.workshop.quant.policy import Kind, WeightedModule

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from stages.workshop.model.configuration import BlueLMVConfig


def checkpoint_config(folder: Path, *, untied: bool = False) -> BlueLMVConfig:
    """The configuration of a checkpoint.

    Args:
        folder: the checkpoint.
        untied: a head tied to the embedding shall have a weight of its own.

    Raises:
        ModelError: the configuration is of another model.
    """
    from stages.workshop.model.configuration import MODEL_TYPE, BlueLMVConfig

    values, _ = BlueLMVConfig.get_config_dict(folder, local_files_only=True)
    if values.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{folder}: the model type is {values.get('model_type')!r}, not {MODEL_TYPE!r}.",
            "The policy names parts of BlueLM-V checkpoints.",
            f"Take over a VILA-1.5 or LLaVA-OneVision folder with: bluelm adopt {folder} --out CHECKPOINT",
        )
    if untied:
        values["text_config"] = {**values["text_config"], "tie_word_embeddings": False}
    config: BlueLMVConfig = BlueLMVConfig.from_dict(values)
    return config


def empty_model(config: BlueLMVConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device: structure and shapes, no memory."""
    import torch

    from stages.workshop.model.modeling import BlueLMVForConditionalGeneration

    with torch.device("meta"):
        return BlueLMVForConditionalGeneration(config)


def weighted_modules(model: PreTrainedModel) -> tuple[WeightedModule, ...]:
    """Every Linear, Embedding and convolution, in the model's order.

    Left out: `out_proj` inside torch's MultiheadAttention, whose weight is read past the module, so it stays float.
    """
    from torch import nn

    found = []
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, module in model.named_modules():
        if type(module) not in (nn.Linear, nn.Embedding, nn.Conv2d):
            continue
        shape = module.weight.shape
        kind = _kind(model, module, bool(tied))
        found.append(WeightedModule(name, kind, shape[0], math.prod(shape[1:])))
    return tuple(found)


def part_of(name: str) -> str:
    """The part of the model that a parameter or module belongs to, as reports sum them up."""
    for prefix, part in (
        ("vision_tower.", "vision tower"),
        ("multi_modal_projector.", "connector"),
        ("language_model.model.embed_tokens", "embedding"),
        ("language_model.lm_head", "head"),
        ("language_model.", "language model"),
    ):
        if name.startswith(prefix):
            return part
    return "other"


def _kind(model: PreTrainedModel, module: nn.Module, tied: bool) -> Kind:
    from torch import nn

    if module is model.get_output_embeddings():
        return "tied head" if tied else "head"
    if module is model.get_input_embeddings():
        return "token embedding"
    if isinstance(module, nn.Linear):
        return "linear"
    return "embedding" if isinstance(module, nn.Embedding) else "convolution"
