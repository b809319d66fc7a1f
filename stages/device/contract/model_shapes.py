"""Widths and depths of the models we make ourselves: plain data, so that estimating one needs no torch.

What a preset's pictures look like (tile, patch, tokens) is in `stages.device.imaging.presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stages.artifacts.errors import UsageError


@dataclass(frozen=True)
class ModelPreset:
    """Widths and depths; the tile and patch come from the imaging preset of the same name.

    Language model widths are multiples of 32 (quantization blocks), its heads of 16 (rotary in GroupQueryAttention).
    """

    vision_layers: int
    vision_width: int
    vision_mlp: int
    vision_heads: int
    text_layers: int
    text_width: int
    text_mlp: int
    text_heads: int
    text_kv_heads: int
    vocab_size: int
    max_positions: int
    rope_theta: float = 10000.0
    tied: bool = True


MODEL_PRESETS: Mapping[str, ModelPreset] = MappingProxyType(
    {
        # SigLIP so400m/14-384 and the shape of MiniCPM-2B, the open stand-in for the 2.7 B model (Sec. 3.3, 5.2).
        "bluelm-v-3b": ModelPreset(
            vision_layers=27,
            vision_width=1152,
            vision_mlp=4304,
            vision_heads=16,
            text_layers=40,
            text_width=2304,
            text_mlp=5760,
            text_heads=36,
            text_kv_heads=36,
            vocab_size=122753,
            max_positions=4096,
        ),
        # Reads, starting from a tower and a language model that were trained apart (recipes/base).
        "demo": ModelPreset(
            vision_layers=6,
            vision_width=256,
            vision_mlp=768,
            vision_heads=4,
            text_layers=5,
            text_width=256,
            text_mlp=768,
            text_heads=4,
            text_kv_heads=2,
            # Bytes, and nothing merged: letters are written down one by one, as they are read (RESULTS.md).
            vocab_size=260,
            max_positions=2048,
        ),
        # Trains from random weights on 2 cores in minutes.
        "tiny": ModelPreset(
            vision_layers=4,
            vision_width=128,
            vision_mlp=256,
            vision_heads=4,
            text_layers=2,
            text_width=128,
            text_mlp=256,
            text_heads=4,
            text_kv_heads=2,
            vocab_size=512,
            max_positions=2048,
        ),
    }
)


def model_preset(name: str) -> ModelPreset:
    """A preset by name.

    Raises:
        UsageError: there is none of that name; the message names the nearest.
    """
    if name in MODEL_PRESETS:
        return MODEL_PRESETS[name]
    near = difflib.get_close_matches(name, MODEL_PRESETS, n=1)
    raise UsageError(
        f"There is no model preset {name!r}.",
        "The preset gives the shape of the model.",
        f"{f'Did you mean {near[0]}? ' if near else ''}Presets: {', '.join(MODEL_PRESETS)}.",
    )
