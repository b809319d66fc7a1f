"""prefill-N.onnx: one decoder layer over a chunk of the prompt, its INT8 weights given as inputs.

The runtime expands a layer's INT4 weights, runs all chunks of the prompt through it, and goes on to the next layer: the
weights stay INT4 in memory and are multiplied at INT8 speed. Keys and values of the layer being read are float32.

Axes: S tokens of this chunk, H hidden, D head size, C capacity of the cache.

    hidden_states [1, S, H]   past_key/value [1, kv_heads, C, D]   seqlens_k [1]   total_sequence_length   weights
                       → output_states [1, S, H]   present_key/value [1, kv_heads, C, D]

The last layer's graph ends at its keys and values [1, kv_heads, S, D]: what lies behind them matters for the last
position only, and that one goes through decoder.onnx. Source: BlueLM-V-3B Sec. 3.4 (chunks, INT16 activations).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.device.contract import prefill_layout as layout
from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.dynamic_int8 import RoundedRows, emit_int8_product, emit_rounded
from stages.workshop.graph.emitter import FLOAT, INT8, INT32, INT64, Dim, GraphEmitter
from stages.workshop.graph.head_norm import emit_head_norm
from stages.workshop.graph.rotary import RotaryTables

Precision = Literal["int8", "int16"]
# Names of a layer's Linears; queries, keys and values are one product where decoder.onnx has them as one.
PACKED, QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = "qkv", "q", "k", "v", "o", "gate", "up", "down"
# Keys and values of the last layer.
KEY_VALUE = "kv"
CAPACITY, SEQUENCE = "capacity", "sequence_length"


@dataclass(frozen=True)
class LinearForm:
    """How one Linear of the layer is multiplied."""

    rows: int
    columns: int
    precision: Precision
    bias: bool


Forms = Mapping[str, LinearForm]


class PrefillLayerEmitter:
    """The nodes of one layer.

    Args:
        emitter: the graph.
        shape: the decoder's.
        rotary: cos and sin of every position up to the longest context.
        forms: the layer's Linears by name.
        turned: whether the layer turns queries and keys by their positions.
    """

    def __init__(
        self, emitter: GraphEmitter, shape: DecoderShape, rotary: RotaryTables, forms: Forms, *, turned: bool = True
    ) -> None:
        self.emitter, self.shape, self.rotary, self.forms, self.turned = emitter, shape, rotary, forms, turned
        self._hidden = emitter.input(layout.HIDDEN_STATES, FLOAT, [1, SEQUENCE, shape.hidden])
        self._past = ""

    def emit(self) -> None:
        """
        hidden ─┬─ norm ─ qkv ─ attention ─ o ─ (+) ─┬─ norm ─ mlp ─ (+) ─ output_states
                └───────────────────────────────────┘└─────────────────┘
        """
        emitter = self.emitter
        attended = self._attention(self._input_norm())  # [1, S, heads·D]
        mixed = self._product(self._values(attended, "attn/o_rounded"), OUT, "attn/o_proj")
        place, op = "post_attention_layernorm", "SkipSimplifiedLayerNormalization"
        normed, residual = (f"{emitter.root}/{place}/{op}/output_{index}" for index in (0, 3))
        inputs = [self._hidden, mixed, self._norm(layout.ATTENTION_NORM)]
        emitter.microsoft(op, inputs, place, outputs=[normed, "", "", residual], epsilon=self.shape.epsilon)
        branch = self._mlp(normed)
        emitter.output(layout.OUTPUT_STATES, FLOAT, [1, SEQUENCE, self.shape.hidden])
        emitter.node("Add", [residual, branch], "output", outputs=[layout.OUTPUT_STATES])

    def emit_last(self) -> None:
        """
        hidden ─ norm ─ kv ─ Split ─┬─ k ─ (norm) ─ RotaryEmbedding ─ Reshape ─ Transpose ─ present_key
                                    └─ v ──────────────────────────── Reshape ─ Transpose ─ present_value
        """
        emitter, shape, values = self.emitter, self.shape, self._input_norm()
        if KEY_VALUE in self.forms:
            both = self._product(values, KEY_VALUE, "attn/kv_proj")
            key, value = (f"{emitter.root}/attn/Split/output_{index}" for index in range(2))
            emitter.node("Split", [both], "attn", outputs=[key, value], axis=-1, num_outputs=2)
        else:
            key, value = (self._product(values, name, f"attn/{name}_proj") for name in (KEY, VALUE))
        key = self._normed_heads(key, layout.KEY_NORM, shape.kv_heads)
        if self.turned:
            key = self._turned(key, "attn/k_rotary")
        for x, name in ((key, layout.PRESENT_KEY), (value, layout.PRESENT_VALUE)):
            emitter.output(name, FLOAT, [1, shape.kv_heads, SEQUENCE, shape.head_dim])
            heads = emitter.const([0, 0, shape.kv_heads, shape.head_dim])
            split = emitter.node("Reshape", [x, heads], f"attn/{name}")  # [1, S, kv_heads, D]
            emitter.node("Transpose", [split], f"attn/{name}", outputs=[name], perm=[0, 2, 1, 3])

    def _norm(self, name: str) -> str:
        return self.emitter.input(name, FLOAT, [self.shape.hidden])

    def _input_norm(self) -> _Values:
        inputs, epsilon = [self._hidden, self._norm(layout.INPUT_NORM)], self.shape.epsilon
        normed = self.emitter.node("RMSNormalization", inputs, "input_layernorm", epsilon=epsilon, axis=-1)
        return self._values(normed, "input_layernorm/rounded")

    def _values(self, x: str, address: str) -> _Values:
        return _Values(self.emitter, x, address)

    def _product(self, values: _Values, name: str, address: str) -> str:
        """The product with the weights that the runtime hands in under the Linear's name."""
        form, emitter = self.forms[name], self.emitter
        weight = emitter.input(f"{name}.weight", INT8, [form.columns, form.rows])
        scales = emitter.input(f"{name}.scales", FLOAT, [form.rows])
        bias = emitter.input(f"{name}.bias", FLOAT, [form.rows]) if form.bias else ""
        return emit_int8_product(emitter, values.rounded(form.precision), weight, scales, address, bias=bias)

    def _attention(self, values: _Values) -> str:
        """Causal attention over the cache and this chunk; see `decoder.DecoderEmitter._attention`."""
        shape, emitter = self.shape, self.emitter
        if PACKED in self.forms:
            query, key, value = self._product(values, PACKED, "attn/qkv_proj"), "", ""
        else:
            query, key, value = (self._product(values, name, f"attn/{name}_proj") for name in (QUERY, KEY, VALUE))
        query = self._normed_heads(query, layout.QUERY_NORM, shape.heads)
        key = self._normed_heads(key, layout.KEY_NORM, shape.kv_heads)
        inside = self.turned and shape.rotary_in_attention
        if self.turned and not inside:
            query, key = self._turned(query, "attn/q_rotary"), self._turned(key, "attn/k_rotary")
        tables = self._tables() if inside else ["", ""]
        cache: list[Dim] = [1, shape.kv_heads, CAPACITY, shape.head_dim]
        for past, present in ((layout.PAST_KEY, layout.PRESENT_KEY), (layout.PAST_VALUE, layout.PRESENT_VALUE)):
            emitter.input(past, FLOAT, cache)
            emitter.output(present, FLOAT, cache)
        lengths = [emitter.input(layout.SEQLENS_K, INT32, [1]), emitter.input(layout.TOTAL_LENGTH, INT32, [])]
        attended = f"{emitter.root}/attn/GroupQueryAttention/output_0"
        emitter.microsoft(
            "GroupQueryAttention",
            [query, key, value, layout.PAST_KEY, layout.PAST_VALUE, *lengths, *tables],
            "attn",
            outputs=[attended, layout.PRESENT_KEY, layout.PRESENT_VALUE],
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=int(inside),
        )
        return attended

    def _normed_heads(self, x: str, name: str, heads: int) -> str:
        """Queries or keys through the norm of their heads, where the model has one."""
        if not self.shape.qk_norm:
            return x
        scale = self.emitter.input(name, FLOAT, [self.shape.head_dim])
        return emit_head_norm(self.emitter, x, scale, name.rpartition(".")[0].replace(".", "/"), heads, self.shape)

    def _tables(self) -> list[str]:
        return [
            self.emitter.weight("cos_cache", self.rotary.cos),
            self.emitter.weight("sin_cache", self.rotary.sin),
        ]

    def _turned(self, x: str, address: str) -> str:
        """Queries or keys turned by their position, the first of which is the number of tokens before."""
        self._past = self._past or self.emitter.input(layout.PAST_LENGTH, INT64, [1])
        return self.emitter.microsoft("RotaryEmbedding", [x, self._past, *self._tables()], address)

    def _mlp(self, normed: str) -> str:
        """SwiGLU.

        normed ─┬─ gate ─ QuickGelu(1) = SiLU ─┐
                └─ up ─────────────────────── Mul ─ down
        """
        emitter, values = self.emitter, self._values(normed, "mlp/rounded")
        gate, up = (self._product(values, name, f"mlp/{name}_proj") for name in (GATE, UP))
        opened = emitter.microsoft("QuickGelu", [gate], "mlp/act_fn", alpha=1.0)
        product = emitter.node("Mul", [opened, up], "mlp")
        return self._product(self._values(product, "mlp/down_rounded"), DOWN, "mlp/down_proj")


class _Values:
    """Activations that several products take: rounded once for each precision that is asked for."""

    def __init__(self, emitter: GraphEmitter, x: str, address: str) -> None:
        self._emitter, self._x, self._address = emitter, x, address
        self._rounded: dict[Precision, RoundedRows] = {}

    def rounded(self, precision: Precision) -> RoundedRows:
        if precision not in self._rounded:
            address = f"{self._address}/{precision}"
            self._rounded[precision] = emit_rounded(self._emitter, self._x, address, precision)
        return self._rounded[precision]
