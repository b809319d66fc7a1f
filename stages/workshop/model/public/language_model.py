"""A causal language model's folder as the language model: Llama, Qwen2, Qwen3, SmolLM, MiniCPM; no remote code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.workshop.model.public.minicpm import fold_scales, is_minicpm, minicpm_config
from stages.workshop.model.public.source import WeightPlace, read_config, read_json, weights_in

_PREFIX = "language_model."
_FIX = "Give a Llama, Qwen2, Qwen3, SmolLM or MiniCPM-2B folder."


def read_language_config(folder: Path) -> PretrainedConfig:
    """The configuration of a language model; MiniCPM's as the Llama that it becomes.

    Raises:
        ModelError: no causal language model, one that transformers does not know, or one quantized in a way that is
            not read here.
    """
    config = read_json(folder / "config.json")
    if is_minicpm(config):
        return minicpm_config(folder, config)
    found = read_config(folder)
    raise_all(list(_problems(folder, found)))
    return found


def read_language_weights(folder: Path) -> dict[str, WeightPlace]:
    """Where the language model's weights lie, by our names (`language_model.…`), MiniCPM's with their factors.

    Raises:
        ModelError: no safetensors, or damaged ones.
    """
    config = read_json(folder / "config.json")
    weights = weights_in(folder)
    if is_minicpm(config):
        weights = fold_scales(config, weights)
    # Old files hold the rotary table, which is computed from the configuration.
    return {f"{_PREFIX}{name}": place for name, place in weights.items() if not name.endswith(".rotary_emb.inv_freq")}


def _problems(folder: Path, config: Any) -> Iterator[BluelmError]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or hasattr(config, "vision_config"):
        yield ModelError(f"{folder} is a {config.model_type}.", "The language model reads and writes text only.", _FIX)
    elif getattr(config, "quantization_config", None) is not None:
        method = config.quantization_config.get("quant_method", "unknown")
        yield ModelError(
            f"{folder} is quantized ({method}).",
            "Training starts from whole weights; bluelm quantize makes them small afterwards.",
            "Give the model in bfloat16, float16 or float32, or quantized by GPTQ or AWQ.",
        )
