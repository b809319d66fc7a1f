"""Which language models llama.cpp has a graph for, and how it calls their parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.workshop.graph.decoder_shape import DecoderShape, decoder_shape
from stages.workshop.graph.linear import Floats

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3"}
# Those turn neighbouring numbers of a head by their position, where transformers turns its two halves.
PAIRED = ("llama", "smollm3")
# SmolLM3's graph leaves every fourth layer without positions, and has no key for another number.
NOPE_INTERVAL = 4


@dataclass(frozen=True)
class GgufShape:
    """A language model in llama.cpp's words.

    Attributes:
        architecture: llama.cpp's name.
        decoder: sizes.
        positions: longest context.
        rope_base: of the rotary embedding.
        rope_linear: positions are divided by this.
        rope_factors: wavelengths are multiplied with these [D/2] (Llama 3.1); None for 1.
    """

    architecture: str
    decoder: DecoderShape
    positions: int
    rope_base: float
    rope_linear: float
    rope_factors: Floats | None

    @property
    def paired(self) -> bool:
        """Whether rows of queries and keys go into another order."""
        return self.architecture in PAIRED


def gguf_shape(config: PretrainedConfig) -> GgufShape:
    """Reads a text configuration.

    Raises:
        ModelError: what llama.cpp's graph of that architecture leaves out; all of it together.
    """
    decoder = decoder_shape(config)
    raise_all(list(_problems(config, decoder)))
    rope: Any = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    return GgufShape(
        architecture=ARCHITECTURES[config.model_type],
        decoder=decoder,
        positions=int(config.max_position_embeddings),
        rope_base=float(rope.get("rope_theta", 10000.0)),
        rope_linear=float(rope["factor"]) if kind == "linear" else 1.0,
        rope_factors=_factors(config, decoder) if kind == "llama3" else None,
    )


def turned_order(rows: int, heads: int) -> np.ndarray:
    """Rows of queries or keys so that the two halves of each head become neighbours: the order for `weight[order]`."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _factors(config: Any, decoder: DecoderShape) -> Floats:
    """Wavelengths of the scaled rotary embedding over those of the plain one, float32 [D/2]."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    with torch.no_grad():
        scaled = LlamaRotaryEmbedding(config).inv_freq.double().numpy()
    exponent = np.arange(0, decoder.head_dim, 2) / decoder.head_dim
    plain = float(config.rope_parameters["rope_theta"]) ** -exponent
    return (plain / scaled).astype(np.float32)


def _problems(config: Any, decoder: DecoderShape) -> Iterator[BluelmError]:
    kind = (config.rope_parameters or {}).get("rope_type", "default")
    architecture = ARCHITECTURES[config.model_type]
    if kind == "yarn":
        yield _problem("rope_type yarn is scaled otherwise there", "Set rope_type to default for short contexts.")
    if kind == "llama3" and architecture != "llama":
        yield _problem(f"the rope_type llama3 belongs to llama, not to {config.model_type}", "Use a Llama model.")
    if architecture in ("qwen3", "smollm3") and decoder.qkv_bias:
        yield _problem(f"{config.model_type} has no attention_bias there", "Use a model without attention_bias.")
    if architecture == "qwen2" and decoder.out_bias:
        yield _problem("qwen2 has no bias behind attention there", "Use a model without attention_bias.")
    if architecture != "llama" and decoder.mlp_bias:
        yield _problem(f"{config.model_type} has no mlp_bias there", "Use a model without mlp_bias.")
    expected = frozenset(range(NOPE_INTERVAL - 1, decoder.layers, NOPE_INTERVAL))
    if architecture == "smollm3" and decoder.unturned != expected:
        yield _problem(
            f"SmolLM3 leaves every {NOPE_INTERVAL}th layer without positions there, this model other ones",
            f"Use a SmolLM3 with no_rope_layer_interval {NOPE_INTERVAL}.",
        )


def _problem(what: str, fix: str) -> ModelError:
    return ModelError(
        f"llama.cpp cannot express this language model: {what}.",
        "Its graph would compute something else.",
        f"{fix} bluelm chat and onnxruntime-genai run the export as it is.",
    )
