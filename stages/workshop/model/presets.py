"""How to build the models we make ourselves, with random weights.

Their widths and depths are in `stages.device.contract.model_shapes`, what their pictures look like (tile, patch,
tokens) in `stages.device.imaging.presets`, both free of torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, SiglipVisionConfig
from transformers.initialization import no_init_weights

from stages.device.contract.model_shapes import MODEL_PRESETS as MODEL_PRESETS
from stages.device.contract.model_shapes import ModelPreset as ModelPreset
from stages.device.contract.model_shapes import model_preset as model_preset
from stages.device.imaging.presets import imaging_preset
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration


def preset_config(
    name: str,
    *,
    vocab_size: int | None = None,
    image_token_id: int = 3,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    text_layers: int | None = None,
    vision_layers: int | None = None,
    **overrides: Any,
) -> BlueLMVConfig:
    """The configuration of a preset.

    Args:
        name: a key of `MODEL_PRESETS`.
        vocab_size: tokens, when a tokenizer was trained for this model.
        image_token_id: the image token's id (3 in tokenizers of `train_tokenizer`).
        eos_token_id: the token that ends an answer.
        pad_token_id: the token that fills short prompts.
        text_layers: language model layers instead of the preset's.
        vision_layers: tower layers instead of the preset's.
        overrides: fields of `BlueLMVConfig`, such as `fuse_linear`.

    Raises:
        UsageError: there is no such preset.
    """
    shape, imaging = model_preset(name), imaging_preset(name)
    vision = SiglipVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=shape.vision_mlp,
        num_hidden_layers=vision_layers or shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=imaging.tiling.tile_size,
        patch_size=imaging.patch_size,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=vocab_size or shape.vocab_size,
        hidden_size=shape.text_width,
        intermediate_size=shape.text_mlp,
        num_hidden_layers=text_layers or shape.text_layers,
        num_attention_heads=shape.text_heads,
        num_key_value_heads=shape.text_kv_heads,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )
    return BlueLMVConfig(vision_config=vision, text_config=text, image_token_id=image_token_id, **overrides)


def build_model(config: BlueLMVConfig, seed: int = 0) -> BlueLMVForConditionalGeneration:
    """A model with random weights; the same seed gives the same weights. The global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlueLMVForConditionalGeneration(config)
    _settle_generation(model)
    return model


def build_for_weights(config: BlueLMVConfig, seed: int = 0) -> BlueLMVForConditionalGeneration:
    """A model whose connector alone is random; the rest is memory to be filled: drawing 3 billion numbers is slow."""
    with no_init_weights():
        model = BlueLMVForConditionalGeneration(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.multi_modal_projector.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
                model._init_weights(module)
    model.tie_weights()
    _settle_generation(model)
    return model


def _settle_generation(model: BlueLMVForConditionalGeneration) -> None:
    config = model.config
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    # A slot without a picture behind it is never an answer.
    model.generation_config.suppress_tokens = [config.image_token_id]
