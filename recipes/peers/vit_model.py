"""The vision tower and connector of a comparison as a torch module: SigLIP so400m/14-384 of some layers."""

from __future__ import annotations

import torch

from stages.workshop.model.presets import build_model, preset_config

PRESET = "bluelm-v-3b"
# The language model behind it is as small as its width allows: nobody runs it.
WORDS = 64


def vit_config(layers: int):
    """The whole model's configuration."""
    return preset_config(PRESET, vocab_size=WORDS, text_layers=1, vision_layers=layers)


def vit_model(layers: int):
    """The whole model with random weights, always the same."""
    return build_model(vit_config(layers), seed=0).eval().requires_grad_(False)


class BothFeatures(torch.nn.Module):
    """pixel_values [T, 3, S, S] → tower features [T, P, C], image tokens [T, K, H]."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.model.get_vision_features(pixel_values)
        return features, self.model.multi_modal_projector(features)
