"""BlueLM-V: SigLIP tower → connector → language model (Sec. 3.1).

Axes: B sequences, L tokens, T tiles of the whole batch, P patches per tile, C tower width, H language model width,
S tile side in pixels, V vocabulary.

All tiles of a batch go through the tower as one batch (Sec. 4), in the order in which their slots stand in the prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from stages.artifacts.errors import ModelError
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.connector import BlueLMVConnector


class BlueLMVForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Pictures and text in, text out.

    Attributes:
        vision_tower: a `SiglipVisionModel`.
        multi_modal_projector: the connector (downsampler and projector).
        language_model: any causal language model with Llama-style parts.
    """

    config_class = BlueLMVConfig
    config: BlueLMVConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: BlueLMVConfig) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = BlueLMVConnector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The language model's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def embed_patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels [T, 3, S, S] → patch embeddings with positions [T, P, C]: the part that runs apart (Sec. 3.2)."""
        return self.vision_tower.embeddings(pixel_values)

    def encode_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch embeddings [T, P, C] → tower features [T, P, C], before the connector."""
        return tower_features(
            self.vision_tower, patches, self.config.vision_layers_used, self.config.vision_post_layernorm
        )

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels [T, 3, S, S] → tower features [T, P, C], before the connector."""
        side = self.config.tile_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, side, side):
            raise ModelError(
                f"pixel_values has the shape {list(pixel_values.shape)}, not [tiles, 3, {side}, {side}].",
                "Every tile of the batch goes through the vision tower as one row.",
                "Cut the pictures with this model's own image processor and join the tiles of all pictures.",
            )
        return self.encode_patches(self.embed_patches(pixel_values))

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels [T, 3, S, S] → image tokens [T, tokens, H]."""
        return self.multi_modal_projector(self.get_vision_features(pixel_values))

    def _embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None,
        image_features: torch.Tensor | None,
        vision_features: torch.Tensor | None,
    ) -> torch.Tensor:
        """Token embeddings [B, L, H] with the image tokens put into their slots."""
        embeds = self.get_input_embeddings()(input_ids)  # [B, L, H]
        slots = input_ids == self.config.image_token_id  # [B, L]
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)  # [T, tokens, H]
        elif vision_features is not None:
            image_features = self.multi_modal_projector(vision_features.to(embeds))  # [T, tokens, H]
        if image_features is None:
            _check_slots(int(slots.sum()), 0)
            return embeds
        flat = image_features.reshape(-1, embeds.shape[-1]).to(embeds)  # [T·tokens, H]
        _check_slots(int(slots.sum()), flat.shape[0])
        return embeds.masked_scatter(slots.unsqueeze(-1), flat)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Runs the model.

        Args:
            input_ids: [B, L]; every image token is one slot, as many as the pictures fill.
            pixel_values: [T, 3, S, S], all tiles of the batch in prompt order, normalized.
            attention_mask: [B, L], 0 for padding.
            position_ids: [B, L].
            past_key_values: the cache of earlier calls.
            inputs_embeds: [B, L, H] instead of `input_ids`, image tokens already in place.
            labels: [B, L], -100 where nothing is learned; the loss is the mean over the others.
            image_features: [T, tokens, H] or [T·tokens, H] already encoded, instead of `pixel_values`.
            vision_features: [T, P, C] from the tower, before the connector, instead of `pixel_values`.
            use_cache: whether to return a cache.
            logits_to_keep: how many last positions get logits (0: all).

        Raises:
            ModelError: slots and image tokens do not match, or the inputs contradict each other.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ModelError(
                "forward needs either input_ids or inputs_embeds, and not both.",
                "They are two forms of the same prompt.",
                "Pass one of them.",
            )
        pictures = {
            "pixel_values": pixel_values,
            "image_features": image_features,
            "vision_features": vision_features,
        }
        given = [name for name, value in pictures.items() if value is not None]
        if len(given) > 1:
            raise ModelError(
                f"forward got both {' and '.join(given)}.",
                "The features are what the pixels become.",
                "Pass one of them.",
            )
        if input_ids is not None:
            inputs_embeds = self._embed(input_ids, pixel_values, image_features, vision_features)
        elif given:
            raise ModelError(
                "forward got pictures together with inputs_embeds.",
                "Without input_ids the slots of the pictures are unknown.",
                "Pass input_ids, or put the image tokens into inputs_embeds yourself.",
            )
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self, *args: Any, is_first_iteration: bool = False, image_features: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Pictures go in with the prompt only; later steps see one text token each."""
        inputs = super().prepare_inputs_for_generation(*args, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["image_features"] = image_features
        return inputs


def tower_features(tower: Any, patches: torch.Tensor, layers: int, post_layernorm: bool) -> torch.Tensor:
    """What a SigLIP tower makes of embedded patches [T, P, C] → [T, P, C]: its first layers, and its last LayerNorm."""
    hidden = patches
    for layer in tower.encoder.layers[:layers]:
        hidden = layer(hidden, None)
    return tower.post_layernorm(hidden) if post_layernorm else hidden


def _check_slots(slots: int, features: int) -> None:
    if slots != features:
        raise ModelError(
            f"The prompts hold {slots} image slots, the pictures give {features} image tokens.",
            "Every slot takes exactly one image token; a mismatch would shift pictures into the wrong place.",
            "Build prompts and tiles with this model's processor, and don't cut the prompt inside a picture.",
        )
