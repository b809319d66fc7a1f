"""A model joined from two public folders: a SigLIP tower and a language model; only the connector starts at random.

This is how stage 1 of the paper begins (Sec. 4): SigLIP and BlueLM, pre-trained apart, and a fresh projector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.artifacts.manifest import Parent, parent_of
from stages.device.imaging.spec import TilingSpec
from stages.device.prompt.template import default_template
from stages.workshop.model.checkpoint import quiet
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import IM_END, IM_START, IMAGE_TOKEN
from stages.workshop.training.sources import Outline

_FIX = "Give a plain transformers folder with config.json, safetensors and the tokenizer or preprocessor files."


@dataclass(frozen=True)
class FromParts:
    """A SigLIP folder (whole model or tower) and a causal language model's folder."""

    vision: Path
    llm: Path

    def parents(self) -> tuple[Parent, ...]:
        problems: list[BluelmError] = [
            ModelError(f"{path} holds no config.json.", "It is one of the model's parts.", _FIX)
            for path in (self.vision, self.llm)
            if not (path / "config.json").is_file()
        ]
        raise_all(problems)
        return (parent_of(self.vision), parent_of(self.llm))

    def outline(self, texts: Iterable[str]) -> Outline:
        from transformers import AutoConfig, AutoTokenizer

        tower = _read(AutoConfig, self.vision)
        tower = getattr(tower, "vision_config", tower)
        if tower.model_type != "siglip_vision_model":
            raise ModelError(
                f"{self.vision} is a {tower.model_type}.",
                "The vision tower is a SigLIP model.",
                "Give a SigLIP folder.",
            )
        tower.vision_use_head = False
        text = _read(AutoConfig, self.llm)
        tokenizer = _read(AutoTokenizer, self.llm)
        tokenizer.add_special_tokens({"additional_special_tokens": [IM_START, IM_END, IMAGE_TOKEN]})
        tokenizer.chat_template = default_template()
        tokenizer.eos_token = IM_END
        if tokenizer.pad_token is None:
            tokenizer.pad_token = IM_END
        text.vocab_size = max(text.vocab_size, len(tokenizer))
        text.eos_token_id, text.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        config = BlueLMVConfig(vision_config=tower, text_config=text, image_token_id=image_token_id)
        spec = TilingSpec(tile_size=config.tile_size, tokens_per_tile=config.tokens_per_tile)
        pictures = BlueLMVImageProcessor(spec, patch_size=tower.patch_size, **_colours(self.vision))
        return Outline(config, BlueLMVProcessor(pictures, tokenizer))

    def load(self, outline: Outline, seed: int) -> BlueLMVForConditionalGeneration:
        from transformers import AutoModelForCausalLM, SiglipVisionModel

        model = build_model(outline.config, seed)
        _copy(SiglipVisionModel, self.vision, model.vision_tower)
        _copy(AutoModelForCausalLM, self.llm, model.language_model)
        return model


def _copy(kind: Any, folder: Path, target: nn.Module) -> None:
    """Copies a folder's weights by name. Rows of tokens that it did not have become the mean of the others.

    Raises:
        ModelError: a weight of the target is not in the part.
    """
    part, info = _read(kind, folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    weights = part.state_dict()
    missing = [name for name in target.state_dict() if name not in weights or name in info["missing_keys"]]
    if missing:
        raise ModelError(f"{folder} has no weight {missing[0]}.", "It would stay a random number.", _FIX)
    with torch.no_grad():
        for name, parameter in target.state_dict().items():
            weight = weights[name]
            rows = min(len(parameter), len(weight)) if parameter.ndim else 0
            if parameter.shape == weight.shape:
                parameter.copy_(weight)
            elif parameter.ndim == 2 and parameter.shape[1:] == weight.shape[1:]:
                parameter[:rows].copy_(weight[:rows])
                parameter[rows:] = weight.mean(dim=0)
            else:
                raise ModelError(
                    f"{folder}: {name} is {list(weight.shape)}, the model needs {list(parameter.shape)}.",
                    "The weights do not belong to the configuration beside them.",
                    _FIX,
                )


def _colours(folder: Path) -> dict[str, Any]:
    """Mean and deviation from the tower's own preprocessor; SigLIP's where it has none."""
    import json

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {key: [float(value) for value in content[key]] for key in ("image_mean", "image_std") if key in content}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "It says how pixels become numbers.", _FIX) from error
    for key, values in found.items():
        if len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise ModelError(f"{path}: {key} is {values}.", "It needs one number per colour.", _FIX)
    return found


def _read(kind: Any, folder: Path, **options: Any) -> Any:
    """`from_pretrained` of a local folder; what it raises becomes an error that names the folder.

    Raises:
        ModelError: the folder cannot be read.
    """
    with quiet():
        try:
            return kind.from_pretrained(folder, local_files_only=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"{folder} cannot be read: {first}", "It is one of the model's parts.", _FIX) from error
