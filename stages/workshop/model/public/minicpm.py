"""MiniCPM as a plain Llama: its three scales are folded into the weights, and embedding and head stay tied.

MiniCPM is a Llama that multiplies in three places (Hu et al., arXiv 2404.06395, Sec. 3, after muP):

    embedding × scale_emb      every branch × scale_depth / √L      last hidden state × dim_model_base / hidden

Here the whole residual stream is scale_emb times smaller instead, so that the embedding needs no factor and can stay
the head too:

    branch        o_proj and down_proj × scale_depth / √L / scale_emb
    RMSNorm       the same output from an input scale_emb times smaller: ε / scale_emb²
    final norm    weight × dim_model_base / hidden

The 2.7 B model is the paper's open stand-in for its own language model (Tables 1 and 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.workshop.model.public.source import WeightPlace

MODEL_TYPE = "minicpm"
_SCALES = ("scale_emb", "scale_depth", "dim_model_base")
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps")
# Keys that mean another computation than the one above, and the values with which they mean nothing.
_VARIANTS: dict[str, tuple[Any, ...]] = {
    "rope_scaling": (None,),
    "num_experts": (None, 0, 1),
    "sparse_config": (None,),
    "attention_bias": (None, False),
    "pretraining_tp": (None, 1),
}
_BRANCH_ENDS = (".self_attn.o_proj.weight", ".mlp.down_proj.weight")
_FINAL_NORM = "model.norm.weight"


def is_minicpm(config: Mapping[str, Any]) -> bool:
    """Whether this config.json is of a MiniCPM of the first kind (1B, 2B)."""
    return config.get("model_type") == MODEL_TYPE or "MiniCPMForCausalLM" in (config.get("architectures") or ())


def minicpm_config(folder: Path, config: Mapping[str, Any]) -> LlamaConfig:
    """The configuration of the Llama that computes the same.

    Raises:
        ModelError: sizes or scales are missing, or the model computes something else; all problems together.
    """
    raise_all(list(_problems(folder, config)))
    heads = int(config["num_attention_heads"])
    return LlamaConfig(
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        hidden_act=config.get("hidden_act", "silu"),
        max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
        rms_norm_eps=float(config["rms_norm_eps"]) / float(config["scale_emb"]) ** 2,
        rope_parameters={"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10000.0))},
        tie_word_embeddings=bool(config.get("tie_word_embeddings", True)),
        bos_token_id=config.get("bos_token_id"),
        eos_token_id=config.get("eos_token_id"),
    )


def fold_scales(config: Mapping[str, Any], weights: Mapping[str, WeightPlace]) -> dict[str, WeightPlace]:
    """The same weights with the factors that make them a Llama's."""
    branch = float(config["scale_depth"]) / math.sqrt(config["num_hidden_layers"]) / float(config["scale_emb"])
    head = float(config["dim_model_base"]) / float(config["hidden_size"])

    def factor(name: str) -> float:
        if name.endswith(_BRANCH_ENDS):
            return branch
        return head if name == _FINAL_NORM else 1.0

    return {name: replace(place, factor=factor(name)) for name, place in weights.items()}


def _problems(folder: Path, config: Mapping[str, Any]) -> Iterator[BluelmError]:
    path = folder / "config.json"
    for key in (*_SIZES, *_SCALES):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
            yield ModelError(
                f"{path}: {key} is {value!r}.",
                "MiniCPM's scales and sizes are folded into its weights; a guess would give another model.",
                "Use the config.json that was published with these weights (MiniCPM-2B or -1B).",
            )
    for key, plain in _VARIANTS.items():
        if config.get(key) not in plain:
            yield ModelError(
                f"{path}: {key} is {config[key]!r}.",
                "That MiniCPM computes something that a plain Llama cannot.",
                "Use MiniCPM-2B or MiniCPM-1B in its plain form, such as MiniCPM-2B-sft-bf16.",
            )
