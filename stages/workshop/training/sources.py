"""Where a model to train comes from: a checkpoint, a fresh preset, or a tower and a language model to be joined.

All weights are float32 in training, whatever the files hold; products may run in bfloat16 (see the recipe's `dtype`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from stages.artifacts.folder import open_artifact
from stages.artifacts.manifest import Parent, parent_of
from stages.device.imaging.presets import imaging_preset
from stages.workshop.model.checkpoint import load_model, load_processor
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_model, model_preset, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.training.lora import attach
from stages.workshop.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Outline:
    """A model without its weights: enough to plan."""

    config: BlueLMVConfig
    processor: BlueLMVProcessor

    def shapes(self, recipe: TrainRecipe) -> dict[str, tuple[int, ...]]:
        """Parameter name → shape, LoRA factors included; nothing is allocated.

        Raises:
            RecipeError: LoRA on Linears that are not there.
        """
        with torch.device("meta"):
            model = BlueLMVForConditionalGeneration(self.config)
            attach(model, recipe)
        return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


class Source(Protocol):
    """A model to be trained."""

    def parents(self) -> tuple[Parent, ...]:
        """What is on disk and goes into the result."""

    def outline(self, texts: Iterable[str]) -> Outline:
        """Configuration and processor; `texts` teach a fresh tokenizer."""

    def load(self, outline: Outline, seed: int) -> BlueLMVForConditionalGeneration:
        """The model with its weights in float32."""


@dataclass(frozen=True)
class FromCheckpoint:
    """A model folder of ours."""

    path: Path

    def parents(self) -> tuple[Parent, ...]:
        return (parent_of(open_artifact(self.path, "checkpoint").path),)

    def outline(self, texts: Iterable[str]) -> Outline:
        processor = load_processor(self.path)
        return Outline(BlueLMVConfig.from_pretrained(self.path, local_files_only=True), processor)

    def load(self, outline: Outline, seed: int) -> BlueLMVForConditionalGeneration:
        return load_model(self.path, torch.float32)


@dataclass(frozen=True)
class FreshPreset:
    """A preset's shape with random weights, and a tokenizer trained on the corpus."""

    name: str

    def parents(self) -> tuple[Parent, ...]:
        model_preset(self.name)
        return ()

    def outline(self, texts: Iterable[str]) -> Outline:
        shape = model_preset(self.name)
        tokenizer = train_tokenizer(texts, shape.vocab_size, shape.max_positions)
        processor = BlueLMVProcessor(BlueLMVImageProcessor.from_preset(imaging_preset(self.name)), tokenizer)
        config = preset_config(
            self.name,
            vocab_size=len(tokenizer),
            image_token_id=processor.image_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return Outline(config, processor)

    def load(self, outline: Outline, seed: int) -> BlueLMVForConditionalGeneration:
        return build_model(outline.config, seed)
