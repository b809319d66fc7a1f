"""What the decoder graph needs to know about a language model, and which language models it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import BluelmError, ModelError, raise_all

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Transformers' names; SmolLM and SmolLM2 are llama, Qwen2.5 is qwen2, MiniCPM-2B is the llama that `adopt` folds it to.
SUPPORTED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# What stands in the builder's command where the plain text model's folder goes.
MODEL_FOLDER = "TEXT_MODEL"
# Other rotary scalings change with the length of the prompt, so no table can hold them.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class DecoderShape:
    """A Llama-family decoder: sizes, and which of its Linears have a bias.

    Attributes:
        qk_norm: queries and keys of each head go through an RMSNorm of their own before the rotary embedding (Qwen3).
        unturned: layers whose attention knows no positions (SmolLM3: every fourth).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    epsilon: float
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied: bool
    qk_norm: bool = False
    unturned: frozenset[int] = frozenset()

    @property
    def query_rows(self) -> int:
        """Rows of the query projection: all heads beside one another."""
        return self.heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.kv_heads * self.head_dim

    @property
    def rotary_in_attention(self) -> bool:
        """GroupQueryAttention turns queries and keys itself only where the head size divides by 16."""
        return self.head_dim % 16 == 0

    @property
    def packs_qkv(self) -> bool:
        """One product may give queries, keys and values: nothing of ours stands between it and the attention."""
        return self.rotary_in_attention and not self.qk_norm

    def turns(self, layer: int) -> bool:
        """Whether the layer turns its queries and keys by their positions."""
        return layer not in self.unturned

    @property
    def parameters(self) -> int:
        """Weights of the language model, to within its norms and biases."""
        layer = 2 * self.hidden * (self.query_rows + self.kv_rows) + 3 * self.hidden * self.mlp
        return self.layers * layer + self.vocab * self.hidden * (1 if self.tied else 2)


def decoder_shape(config: PretrainedConfig) -> DecoderShape:
    """Reads a text configuration.

    Raises:
        ModelError: an architecture, activation, window or rotary scaling that the graph cannot express; all of them
            together.
    """
    raise_all(_problems(config))
    biased = bool(getattr(config, "attention_bias", False))
    heads = int(config.num_attention_heads)
    return DecoderShape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        heads=heads,
        kv_heads=int(config.num_key_value_heads or heads),
        head_dim=_head_dim(config),
        mlp=int(config.intermediate_size),
        vocab=int(config.vocab_size),
        epsilon=float(config.rms_norm_eps),
        qkv_bias=biased or config.model_type == "qwen2",
        out_bias=biased,
        mlp_bias=bool(getattr(config, "mlp_bias", False)),
        tied=bool(config.tie_word_embeddings),
        qk_norm=config.model_type == "qwen3",
        unturned=_unturned(config),
    )


def _unturned(config: Any) -> frozenset[int]:
    """Layers without rotary embedding: SmolLM3 lists a 1 for each layer that has it."""
    turned = getattr(config, "no_rope_layers", None) or ()
    return frozenset(layer for layer, has_rotary in enumerate(turned) if not has_rotary)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _problems(config: Any) -> list[BluelmError]:
    """Everything about this configuration that the graph cannot express."""
    if config.model_type not in SUPPORTED:
        return [
            ModelError(
                f"The language model's model_type is {config.model_type!r}.",
                "The decoder graph cannot express that; it would compute something else.",
                f"Use a language model whose model_type is one of {', '.join(SUPPORTED)}. Its text alone, without "
                "pictures and without bluelm chat, may run in onnxruntime-genai: python -m "
                f"onnxruntime_genai.models.builder -m {MODEL_FOLDER} -o OUT -p int4 -e cpu",
            )
        ]
    problems = []
    if config.hidden_act not in ("silu", "swish"):
        problems.append(_problem("hidden_act", config.hidden_act, "silu"))
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        problems.append(_problem("rope_type", rope, "one of " + ", ".join(ROPE_TYPES)))
    windowed = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    if windowed:
        problems.append(_problem("sliding_window", config.sliding_window, "null: full attention"))
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    if heads % kv_heads:
        problems.append(_problem("num_key_value_heads", kv_heads, f"a divisor of the {heads} attention heads"))
    head_dim = _head_dim(config)
    if head_dim % 8:
        problems.append(_problem("head_dim", head_dim, "a multiple of 8, as the attention kernel needs"))
    return problems


def _problem(key: str, value: object, wanted: str) -> BluelmError:
    return ModelError(
        f"The language model's {key} is {value!r}.",
        "The decoder graph cannot express that; it would compute something else.",
        f"Use a language model whose {key} is {wanted}.",
    )
