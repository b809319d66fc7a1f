"""A model joined from two public models: a SigLIP tower and a language model; only the connector starts at random.

This is how stage 1 of the paper begins (Sec. 4): SigLIP and BlueLM, pre-trained apart, and a fresh projector.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.artifacts.manifest import Parent
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.checkpoint import weight_problems
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_for_weights
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.public.language_model import read_language_config, read_language_weights
from stages.workshop.model.public.places import ModelPlace, place_of
from stages.workshop.model.public.source import WeightPlace, read_shapes, read_tensors
from stages.workshop.model.public.tokenizers import TemplateName, read_tokenizer, teach_chat
from stages.workshop.model.public.tower import read_picture_settings, read_tower_config, read_tower_weights
from stages.workshop.model.tokenizer import IMAGE_TOKEN
from stages.workshop.training.sources import Outline

_TOWER, _TEXT = "vision_tower.", "language_model."


@dataclass(frozen=True)
class FromParts:
    """A SigLIP (whole model or tower) and a causal language model.

    Attributes:
        vision, llm: a folder, or `org/name` or `org/name@revision` on the hub.
        template: how a question looks to the model; None: as its tokenizer knows it (see `teach_chat`).
    """

    vision: str | Path
    llm: str | Path
    template: TemplateName | None = None

    @property
    def places(self) -> tuple[ModelPlace, ModelPlace]:
        """Where the two parts lie."""
        return place_of(self.vision), place_of(self.llm)

    def parents(self) -> tuple[Parent, ...]:
        parents: list[Parent] = []
        problems: list[BluelmError] = []
        for place in self.places:
            try:
                parents.append(place.parent())
            except BluelmError as error:
                problems.append(error)
        raise_all(problems)
        return tuple(parents)

    def outline(self, texts: Iterable[str]) -> Outline:
        vision, llm = (place.settings() for place in self.places)
        tower, text = read_tower_config(vision), read_language_config(llm)
        tokenizer = read_tokenizer(llm)
        teach_chat(tokenizer, self.template)
        text.vocab_size = max(text.vocab_size, 1 + max(tokenizer.get_vocab().values()))
        text.eos_token_id, text.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        # A part's own number format would become the model's; training needs float32 (see `sources`).
        tower.dtype = text.dtype = torch.float32
        image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        config = BlueLMVConfig(vision_config=tower, text_config=text, image_token_id=image_token_id)
        spec = TilingSpec(tile_size=config.tile_size, tokens_per_tile=config.tokens_per_tile)
        seen = read_picture_settings(vision)
        preset = ImagingPreset(spec, tower.patch_size, seen.mean, seen.std, seen.resample)
        return Outline(config, BlueLMVProcessor(BlueLMVImageProcessor.from_preset(preset), tokenizer))

    def load(self, outline: Outline, seed: int) -> BlueLMVForConditionalGeneration:
        vision, llm = (place.whole() for place in self.places)
        model = build_for_weights(outline.config, seed)
        _fill(model, _TOWER, read_tower_weights(vision, outline.config.vision_config.num_hidden_layers), vision)
        _fill(model, _TEXT, read_language_weights(llm), llm)
        known = read_tokenizer(llm).get_vocab()
        new = sorted(number for word, number in outline.processor.tokenizer.get_vocab().items() if word not in known)
        _settle_new_tokens(model, new, sorted(set(known.values())))
        return model


def _fill(
    model: BlueLMVForConditionalGeneration, prefix: str, weights: Mapping[str, WeightPlace], folder: Path
) -> None:
    """Copies a part's weights by name, one at a time, into float32.

    Raises:
        ModelError: weights are missing, too many, of another shape, or damaged.
    """
    targets = {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}
    tied = set(model.all_tied_weights_keys)
    raise_all(list(weight_problems(folder, _difference(weights, targets, tied, _tables(model).keys()))))
    try:
        with torch.no_grad():
            for name, tensor in read_tensors({name: weights[name] for name in weights if name not in tied}):
                targets[name][: len(tensor)].copy_(tensor)
                if len(tensor) < len(targets[name]):
                    targets[name][len(tensor) :] = tensor.mean(dim=0, dtype=torch.float32)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder}: {error}.", "Its weights would be missing.", "Copy or download the folder again."
        ) from error


def _difference(
    weights: Mapping[str, WeightPlace], targets: Mapping[str, torch.Tensor], tied: set[str], tables: Collection[str]
) -> dict[str, Any]:
    """What keeps weights from filling their targets; a table may have fewer rows."""
    mismatched = []
    for name, shape in read_shapes({name: weights[name] for name in weights if name in targets}).items():
        wanted = tuple(targets[name].shape)
        shorter = name in tables and shape[1:] == wanted[1:] and shape[0] <= wanted[0]
        if shape != wanted and not shorter:
            mismatched.append((name, shape, wanted))
    return {
        "missing_keys": targets.keys() - weights.keys() - tied,
        "unexpected_keys": weights.keys() - targets.keys(),
        "mismatched_keys": mismatched,
    }


def _settle_new_tokens(model: BlueLMVForConditionalGeneration, new: list[int], known: list[int]) -> None:
    """Rows of tokens that the language model never saw become the mean of those it did.

    A padded vocabulary has rows already where new tokens come to stand, but nothing ever trained them.
    """
    share = torch.zeros(model.config.text_config.vocab_size)
    share[known] = 1 / len(known)
    with torch.no_grad():
        for table in set(_tables(model).values()):
            table[new] = share @ table


def _tables(model: BlueLMVForConditionalGeneration) -> dict[str, nn.Parameter]:
    """The embedding and the head, by all their names: one row a token."""
    owners: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = {id(owner.weight) for owner in owners}
    return {name: value for name, value in model.named_parameters(remove_duplicate=False) if id(value) in rows}
