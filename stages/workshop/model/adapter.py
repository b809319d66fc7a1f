"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) on the language model's Linears, through peft.

    W·x   becomes   W·x + (alpha / rank) · B·(A·dropout(x))      A [rank, in] random, B [out, rank] zero at first

W stays as it is. Merged, W + (alpha / rank)·B·A takes its place and nothing is left of the adapter.
An adapter's folder is peft's own: `PeftModel.from_pretrained(model, folder)` opens it.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from stages.artifacts.errors import ModelError
from stages.artifacts.plain_json import parse_json
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration

ADAPTER_FOLDER = "adapter"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_NAME = "default"
_FACTORS = re.compile(r"\.lora_(?:A|B)\.")
# Where peft puts the model inside its own.
_OUTER = "base_model.model."


@dataclass(frozen=True)
class AdapterShape:
    """What an adapter is made of.

    Attributes:
        rank: columns of B, rows of A.
        alpha: the adapter is scaled by alpha / rank.
        dropout: share of the inputs that A does not see in training.
        targets: names of Linears in the decoder layers, such as `q_proj`.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """Full names of the Linears: SigLIP has layers with a q_proj too."""
        return rf"language_model\.(?:.*\.)?layers\.\d+\.(?:.*\.)?(?:{'|'.join(map(re.escape, self.targets))})"


def attach_adapter(model: BlueLMVForConditionalGeneration, shape: AdapterShape, seed: int = 0) -> None:
    """Puts a fresh adapter on a model, in place; its answers are the same as before until the factors learn.

    Parameters keep their names, but for `.base_layer` in those of wrapped Linears. The global random state is left as
    it was.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    # peft annotates a whole alpha; it only ever divides it by the rank.
    alpha: Any = shape.alpha
    config = LoraConfig(r=shape.rank, lora_alpha=alpha, lora_dropout=shape.dropout, target_modules=shape.pattern)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(model, config, _NAME)


def has_adapter(model: nn.Module) -> bool:
    """Whether an adapter is on a model."""
    return hasattr(model, "peft_config")


def write_adapter(
    model: BlueLMVForConditionalGeneration, folder: Path, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Writes the adapter on a model as peft's two files.

    Args:
        model: with an adapter.
        folder: made where it is missing.
        weights: by the names of the model's parameters, where the model itself holds only a share of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.peft_config[_NAME])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    factors = {
        f"{_OUTER}{name.replace(f'.{_NAME}.', '.')}": value.detach().cpu().contiguous()
        for name, value in (weights or dict(model.named_parameters())).items()
        if is_factor(name)
    }
    save_file(factors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def plain_weights(
    model: BlueLMVForConditionalGeneration, weights: Mapping[str, torch.Tensor], *, merge: bool
) -> dict[str, torch.Tensor]:
    """What `weights` of a model with an adapter are without it, by the names they had before."""
    config = model.peft_config[_NAME]
    scale = config.lora_alpha / config.r
    plain: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if is_factor(name):
            continue
        linear = name.removesuffix(".base_layer.weight")
        if merge and linear != name:
            down, up = (weights[f"{linear}.lora_{factor}.{_NAME}.weight"] for factor in "AB")
            weight = weight + scale * (up @ down)
        plain[name.replace(".base_layer.", ".")] = weight
    return plain


def remove_adapter(model: BlueLMVForConditionalGeneration, *, merge: bool) -> None:
    """Takes the adapter off a model: added to the weights, or leaving them as they were before it."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            if merge:
                module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    del model.peft_config


def is_factor(name: str) -> bool:
    """Whether a parameter of this name is one of an adapter's two matrices."""
    return _FACTORS.search(name) is not None


def linears_in_layers(names: Iterable[str]) -> tuple[str, ...]:
    """Names that `AdapterShape.targets` can take, from the names of a language model's parameters."""
    found = (re.search(r"\.layers\.\d+\.(?:.*\.)?(\w+_proj)\.weight$", name) for name in names)
    return tuple(dict.fromkeys(match.group(1) for match in found if match))


def merge_folder(model: BlueLMVForConditionalGeneration, folder: Path) -> None:
    """Merges an adapter's folder into a model.

    Raises:
        ModelError: its files are missing, damaged, or belong to another model.
    """
    from peft import PeftModel

    expected = _expected_problem(folder)
    if expected is not None:
        raise expected
    try:
        # What peft reports of a mismatch is a warning; here it is an error, told below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped = PeftModel.from_pretrained(model, str(folder), adapter_name=_NAME)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{folder}: the adapter cannot be put on: {first}", "It belongs to another model, or is damaged.", _FIX
        ) from error
    _check_names(folder, wrapped)
    wrapped.merge_and_unload()


_FIX = "Use the folder as bluelm finetune wrote it, with its adapter/ inside."


def _expected_problem(folder: Path) -> ModelError | None:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        return ModelError(f"{folder} has no {' and no '.join(missing)}.", "There is nothing to merge.", _FIX)
    try:
        parse_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return ModelError(
            f"{folder / CONFIG_FILE} cannot be read: {error}.", "It says where the adapter belongs.", _FIX
        )
    return None


def _check_names(folder: Path, wrapped: nn.Module) -> None:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_FILE, framework="pt") as opened:
        there = set(opened.keys())
    wanted = {name.replace(f".{_NAME}.", ".") for name, _ in wrapped.named_parameters() if is_factor(name)}
    if there != wanted:
        odd: Sequence[str] = sorted(there ^ wanted)
        raise ModelError(
            f"{folder}: {len(odd)} factors are missing or too many, such as {odd[0]}.",
            "Layers would stay as they were before training.",
            _FIX,
        )
