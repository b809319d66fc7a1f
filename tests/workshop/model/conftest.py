"""A tiny model, tokenizer and processor, from configurations and seeds alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, SiglipVisionConfig

from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer

TEXTS = ("What colour is the shape?", "The shape is red.", "blue circle, green square, 12 34 567") * 4


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, vocab_size=320)


@pytest.fixture
def make_config(tokenizer: Any) -> Callable[..., BlueLMVConfig]:
    def make(image_size: int = 28, patch_size: int = 4, layers: int = 3, **fields: Any) -> BlueLMVConfig:
        vision = SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=2,
            image_size=image_size,
            patch_size=patch_size,
            vision_use_head=False,
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        fields = {"vision_config": vision, "text_config": text, "image_token_id": 3, **fields}
        return BlueLMVConfig(**fields)

    return make


@pytest.fixture
def make_model(make_config: Callable[..., BlueLMVConfig]) -> Callable[..., BlueLMVForConditionalGeneration]:
    """Random weights everywhere, also where initial ones would be 0 or 1: a swapped or unused weight then shows."""

    def make(seed: int = 0, **fields: Any) -> BlueLMVForConditionalGeneration:
        model = build_model(make_config(**fields), seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
        return model.eval()

    return make


@pytest.fixture
def processor(tokenizer: Any) -> BlueLMVProcessor:
    spec = TilingSpec(tile_size=28, tokens_per_tile=16, max_cols=3, max_rows=3)
    return BlueLMVProcessor(BlueLMVImageProcessor.from_preset(ImagingPreset(spec, patch_size=4)), tokenizer)
