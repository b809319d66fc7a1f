"""decoder.onnx: a Llama-family decoder from embeddings to the logits of the last position.

Axes: S tokens of this call, P tokens before it, H hidden, V vocabulary, D head size, C capacity of the cache.

    inputs_embeds [1, S, H]   attention_mask [1, P+S]   past_key_values.n.key/value [1, kv_heads, C, D]
                       → logits [1, 1, V]   present.n.key/value [1, kv_heads, C, D]

Past and present are one buffer that the runtime binds to both names; its capacity C may be any number up to the
rotary tables' length. A prompt may come in pieces of any length (chunked prefill, Sec. 3.4): only the last position's
logits are computed, and in the last layer everything behind the attention too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stages.device.contract import names
from stages.device.contract.activations import Activations
from stages.device.contract.kv_scales import KvScales
from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.emitter import FLOAT, INT8, INT64, Dim, GraphEmitter
from stages.workshop.graph.head_norm import emit_head_norm
from stages.workshop.graph.linear import Linear, stacked
from stages.workshop.graph.matmul_forms import emit_linear, emit_linears
from stages.workshop.graph.rotary import RotaryTables
from stages.workshop.graph.weight_source import WeightSource

MODEL = "language_model.model"
HEAD = "language_model.lm_head"
CAPACITY = "capacity"


@dataclass(frozen=True)
class DecoderOptions:
    """How the decoder is written.

    Attributes:
        rotary: cos and sin of every position up to the longest context.
        kv_scales: static scales of an INT8 cache; None for a float32 cache.
        exact: float32 arithmetic in every product, for verification.
    """

    rotary: RotaryTables
    kv_scales: KvScales | None = None
    exact: bool = False


@dataclass(frozen=True)
class _Lengths:
    """Values that all layers share: total - 1 and total as GroupQueryAttention wants them, and the tokens before."""

    seqlens_k: str
    total: str
    past: str


class DecoderEmitter:
    """The decoder's nodes: one method per subgraph."""

    def __init__(
        self, emitter: GraphEmitter, weights: WeightSource, shape: DecoderShape, options: DecoderOptions
    ) -> None:
        self.emitter, self.weights, self.shape, self.options = emitter, weights, shape, options
        # What the inputs of each Linear are rounded to, by its address; compact prefill rounds alike.
        self.activations: dict[str, Activations] = {}

    def emit(self) -> Iterator[int]:
        """Writes the whole graph, yielding the number of layers done.

        inputs_embeds ─ layer 0 ─ … ─ layer n-1 ─ norm ─ lm_head ─ logits
        """
        shape, emitter = self.shape, self.emitter
        embeds = emitter.input(names.INPUTS_EMBEDS, FLOAT, [1, "sequence_length", shape.hidden])
        emitter.input(names.ATTENTION_MASK, INT64, [1, "total_sequence_length"])
        emitter.output(names.LOGITS, FLOAT, [1, 1, shape.vocab])
        lengths = self._lengths()
        residual, branch = embeds, ""
        for layer in range(shape.layers):
            self._declare_cache(layer)
            residual, branch = self._layer(layer, residual, branch, lengths)
            yield layer + 1
        normed, _ = self._norm(residual, branch, f"{MODEL}.norm.weight", f"layers.{shape.layers}/final_norm_layernorm")
        # A tied head is the source's business: it hands out the embedding's weights under this name.
        head = self.weights.linear(HEAD, shape.vocab, shape.hidden, bias=False)
        emit_linear(
            emitter, normed, head, "lm_head", names.LOGITS, exact=self.options.exact, one_token=True
        )  # [1, 1, V]

    def _declare_cache(self, layer: int) -> None:
        element = FLOAT if self.options.kv_scales is None else INT8
        cache: list[Dim] = [1, self.shape.kv_heads, CAPACITY, self.shape.head_dim]
        for past, present in (
            (names.past_key(layer), names.present_key(layer)),
            (names.past_value(layer), names.present_value(layer)),
        ):
            self.emitter.input(past, element, cache)
            self.emitter.output(present, element, cache)

    def _lengths(self) -> _Lengths:
        """
        attention_mask ─┬─ ReduceSum ─ Sub 1 ─ Cast ──────────────── seqlens_k [1] int32
                        └─ Shape[1] ─┬─ Squeeze ─ Cast ───────────── total_sequence_length int32
        inputs_embeds ── Shape[1] ───┴─ Sub (only for RotaryEmbedding) ─ past [1] int64
        """
        emitter, place = self.emitter, "attn_mask_reformat"
        mask = names.ATTENTION_MASK
        summed = emitter.node("ReduceSum", [mask, emitter.const([1])], f"{place}/seqlens_k", keepdims=0)  # [1]
        last = emitter.node("Sub", [summed, emitter.const([1])], f"{place}/seqlens_k")
        seqlens_k = emitter.node("Cast", [last], f"{place}/seqlens_k", to=6)
        length = emitter.node("Shape", [mask], f"{place}/total", start=1, end=2)  # [1]
        scalar = emitter.node("Squeeze", [length, emitter.const([0])], f"{place}/total")
        total = emitter.node("Cast", [scalar], f"{place}/total", to=6)
        past = ""
        if not self.shape.rotary_in_attention:
            new = emitter.node("Shape", [names.INPUTS_EMBEDS], f"{place}/past", start=1, end=2)
            past = emitter.node("Sub", [length, new], f"{place}/past")
        return _Lengths(seqlens_k, total, past)

    def _layer(self, layer: int, residual: str, branch: str, lengths: _Lengths) -> tuple[str, str]:
        """One layer; the sum of the two streams it gives is its output.

            residual ─┬─ (+) ─┬──────────────────────────── (+) ─┬───────────── residual
            branch ───┘       └─ norm ─ attention ─ o_proj ──┘   └─ norm ─ mlp ─ branch

        In the last layer only the last position goes on behind the attention (Gather before o_proj).
        """
        place, source = f"layers.{layer}", f"{MODEL}.layers.{layer}"
        normed, residual = self._norm(
            residual, branch, f"{source}.input_layernorm.weight", f"{place}/input_layernorm"
        )  # [1, S, H]
        attended = self._attention(layer, normed, lengths)  # [1, S, heads·D]
        if layer == self.shape.layers - 1:
            attended = self._last_position(attended, f"{place}/attn/last_position")  # [1, 1, heads·D]
            residual = self._last_position(residual, f"{place}/residual/last_position")  # [1, 1, H]
        mixed = self._linear(
            attended, f"{source}.self_attn.o_proj", f"{place}/attn/o_proj", self.shape.hidden, self.shape.query_rows,
            self.shape.out_bias,
        )  # fmt: skip
        normed, residual = self._norm(
            residual, mixed, f"{source}.post_attention_layernorm.weight", f"{place}/post_attention_layernorm"
        )
        return residual, self._mlp(layer, normed)

    def _norm(self, residual: str, branch: str, weight: str, address: str) -> tuple[str, str]:
        """RMSNorm of residual + branch, and that sum; of the residual alone where there is no branch yet.

        residual ─┐
        branch ───┴─ SkipSimplifiedLayerNormalization ─┬─ normed
                                                       └─ sum
        """
        scale = self.emitter.weight(
            weight.removeprefix("language_model."), self.weights.tensor(weight, (self.shape.hidden,))
        )
        epsilon = self.shape.epsilon
        if not branch:
            return self.emitter.node("RMSNormalization", [residual, scale], address, epsilon=epsilon, axis=-1), residual
        op = "SkipSimplifiedLayerNormalization"
        normed, total = (f"{self.emitter.root}/{address}/{op}/output_{index}" for index in (0, 3))
        outputs = [normed, "", "", total]
        self.emitter.microsoft(op, [residual, branch, scale], address, outputs=outputs, epsilon=epsilon)
        return normed, total

    def _last_position(self, x: str, address: str) -> str:
        return self.emitter.node("Gather", [x, self.emitter.const([-1])], address, axis=1)

    def _attention(self, layer: int, normed: str, lengths: _Lengths) -> str:
        """Causal attention over the cache and this call.

            head size divisible by 16, one form of weights, no norm of queries and keys:
                normed ─ qkv_proj ─ GroupQueryAttention(do_rotary)
            otherwise:
                normed ─┬─ q_proj ─ (norm) ─ (RotaryEmbedding) ─┐
                        ├─ k_proj ─ (norm) ─ (RotaryEmbedding) ─┼─ GroupQueryAttention
                        └─ v_proj ──────────────────────────────┘

        Each also takes past_key, past_value, seqlens_k, total_sequence_length, and gives present_key, present_value.
        A layer that knows no positions does without rotary in either form.
        """
        shape, emitter, place = self.shape, self.emitter, f"layers.{layer}/attn"
        tables = [
            emitter.weight("cos_cache", self.options.rotary.cos),
            emitter.weight("sin_cache", self.options.rotary.sin),
        ]
        query, key, value = self._queries_keys_values(layer, normed)
        if shape.qk_norm:
            query, key = (
                self._head_norm(layer, query, "q_norm", shape.heads),
                self._head_norm(layer, key, "k_norm", shape.kv_heads),
            )
        inside = shape.turns(layer) and shape.rotary_in_attention
        if shape.turns(layer) and not inside:
            query, key = (
                emitter.microsoft("RotaryEmbedding", [x, lengths.past, *tables], f"{place}/{part}_rotary")
                for x, part in ((query, "q"), (key, "k"))
            )
        if not inside:
            tables = ["", ""]
        inputs = [query, key, value, names.past_key(layer), names.past_value(layer)]
        inputs += [lengths.seqlens_k, lengths.total, *tables]
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads}
        attributes["do_rotary"] = int(inside)
        attended = f"{emitter.root}/{place}/GroupQueryAttention/output_0"
        emitter.microsoft(
            "GroupQueryAttention",
            inputs + self._kv_scale_inputs(layer),
            place,
            outputs=[attended, names.present_key(layer), names.present_value(layer)],
            **attributes,
            **self._kv_attributes(),
        )
        return attended

    def _queries_keys_values(self, layer: int, normed: str) -> tuple[str, str, str]:
        """Three values, or ("packed", "", "") where one product gives all three."""
        shape, place, source = self.shape, f"layers.{layer}/attn", f"{MODEL}.layers.{layer}.self_attn"
        rows = {"q_proj": shape.query_rows, "k_proj": shape.kv_rows, "v_proj": shape.kv_rows}
        linears = [
            self.weights.linear(f"{source}.{part}", count, shape.hidden, bias=shape.qkv_bias)
            for part, count in rows.items()
        ]
        packed = stacked(linears) if shape.packs_qkv else None
        if packed is not None:
            return self._emitted(normed, {f"{place}/qkv_proj": packed})[0], "", ""
        places = {f"{place}/{part}": linear for part, linear in zip(rows, linears, strict=True)}
        query, key, value = self._emitted(normed, places)
        return query, key, value

    def _head_norm(self, layer: int, x: str, part: str, heads: int) -> str:
        """RMSNorm of each head of x [1, S, heads·D] by itself."""
        name, place = f"{MODEL}.layers.{layer}.self_attn.{part}.weight", f"layers.{layer}/attn/{part}"
        scale = self.emitter.weight(
            name.removeprefix("language_model."), self.weights.tensor(name, (self.shape.head_dim,))
        )
        return emit_head_norm(self.emitter, x, scale, place, heads, self.shape)

    def _kv_scale_inputs(self, layer: int) -> list[str]:
        """Behind cos and sin: position_ids, attention_bias, head_sink (all absent), k_scale, v_scale."""
        scales = self.options.kv_scales
        if scales is None:
            return []
        place = f"{MODEL.removeprefix('language_model.')}.layers.{layer}.attn"
        return [
            "", "", "",
            self.emitter.weight(f"{place}.k_scale", np.atleast_1d(np.array(scales.keys[layer], np.float32))),
            self.emitter.weight(f"{place}.v_scale", np.atleast_1d(np.array(scales.values[layer], np.float32))),
        ]  # fmt: skip

    def _kv_attributes(self) -> dict[str, int | str]:
        if self.options.kv_scales is None:
            return {}
        kind = "PER_TENSOR" if self.options.kv_scales.channels is None else "PER_CHANNEL"
        return {"kv_cache_bit_width": 8, "k_quant_type": kind, "v_quant_type": kind}

    def _mlp(self, layer: int, normed: str) -> str:
        """SwiGLU.

        normed ─┬─ gate_proj ─ QuickGelu(1) = SiLU ─┐
                └─ up_proj ─────────────────────── Mul ─ down_proj
        """
        shape, emitter, place = self.shape, self.emitter, f"layers.{layer}/mlp"
        source, bias = f"{MODEL}.layers.{layer}.mlp", self.shape.mlp_bias
        linears = {
            f"{place}/{part}": self.weights.linear(f"{source}.{part}", shape.mlp, shape.hidden, bias=bias)
            for part in ("gate_proj", "up_proj")
        }
        gate, up = self._emitted(normed, linears)
        opened = emitter.microsoft("QuickGelu", [gate], f"{place}/act_fn", alpha=1.0)
        product = emitter.node("Mul", [opened, up], place)
        return self._linear(product, f"{source}.down_proj", f"{place}/down_proj", shape.hidden, shape.mlp, bias)

    def _linear(self, x: str, source: str, address: str, rows: int, columns: int, bias: bool) -> str:
        linear = self.weights.linear(source, rows, columns, bias=bias)
        return self._emitted(x, {address: linear})[0]

    def _emitted(self, x: str, linears: Mapping[str, Linear]) -> list[str]:
        self.activations |= {address: linear.activations for address, linear in linears.items()}
        return emit_linears(self.emitter, x, linears, exact=self.options.exact)
