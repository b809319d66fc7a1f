"""The static decoder: S tokens after up to C in the cache, no dynamic dimension, attention in stock operators.

Axes: S tokens of a call, C capacity of the cache, H hidden, D head size, g query heads for each key head.

    inputs_embeds [1,S,H]  mask [1,1,S,C+S]  cos, sin [1,1,S,D]  past_key_values.n.key/value [1,kv_heads,C,D]
                     → hidden [1,S,H]  present.n.key/value [1,kv_heads,S,D]

All are integers, see `static_activations`. `hidden` is behind the final norm; head.onnx makes logits of one row of it,
so that a chunk of a prompt costs no head. `present` holds this call's keys and values alone: the caller writes them
into its cache. `mask` is 65535 where a token may look and 0 where it may not: columns 0..C are the cache, the rest this
call. `sin` has its first half negated: x·cos + swapped(x)·sin turns queries and keys. Source: BlueLM-V-3B Sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.device.contract import names
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.static_activations import Encoding, encoding_of
from stages.workshop.graph.decoder import HEAD, MODEL
from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.weight_source import WeightSource
from stages.workshop.npu.values import NpuGraph

HIDDEN, MASK, COS, SIN = "hidden", "mask", "cos", "sin"
# cos and sin: ±1 in the steps of a signed 16-bit number.
UNIT = Encoding(1 / 32767, 32768)
# Probabilities and sigmoids.
SHARE = Encoding(1 / 65535, 0)
# What hides a score: softmax of scores this far below the largest is 0 in 16 bits.
HIDING = 16.0


@dataclass(frozen=True)
class StaticSizes:
    """Tokens of a call and capacity of the cache."""

    tokens: int
    capacity: int


def mask_encoding(scores_span: float) -> Encoding:
    """Of the mask: 65535 is 0, 0 is what hides any score of a range this wide."""
    return Encoding((scores_span + HIDING) / 65535, 65535)


def kv_encoding(scale: float) -> Encoding:
    """Of keys or values: the signed INT8 of `int8_kv` with 128 added."""
    return Encoding(scale, 128, "uint8")


class StaticDecoder:
    """The nodes of one decoder graph; see the module's drawing.

    Args:
        graph: observing or quantized.
        weights: quantized ones.
        shape: the language model.
        sizes: of the graph.
        mask: the mask's encoding.
        kv_scales: of the cache; None in the observing form where there are none yet.
    """

    def __init__(
        self,
        graph: NpuGraph,
        weights: WeightSource,
        shape: DecoderShape,
        sizes: StaticSizes,
        mask: Encoding,
        kv_scales: KvScales | None,
    ) -> None:
        self.graph, self.weights, self.shape, self.sizes = graph, weights, shape, sizes
        self._mask_encoding, self._kv_scales = mask, kv_scales
        self._mask = self._cos = self._sin = ""

    def emit(self) -> Iterator[int]:
        """Writes all layers, yielding how many are done."""
        shape, graph, sizes = self.shape, self.graph, self.sizes
        tokens, capacity = sizes.tokens, sizes.capacity
        x = graph.input(names.INPUTS_EMBEDS, [1, tokens, shape.hidden])
        self._mask = graph.input(MASK, [1, 1, tokens, capacity + tokens], self._mask_encoding)
        self._cos, self._sin = (graph.input(name, [1, 1, tokens, shape.head_dim], UNIT) for name in (COS, SIN))
        for layer in range(shape.layers):
            x = self._layer(layer, x)
            yield layer + 1
        x = self._norm(x, f"{MODEL}.norm.weight", "norm")
        graph.output(HIDDEN, x, [1, tokens, shape.hidden])

    def _layer(self, layer: int, x: str) -> str:
        """
        x ─┬─ norm ─ attention ─ (+) ─┬─ norm ─ mlp ─ (+)
           └──────────────────────┘   └────────────────┘
        """
        place, source = f"layers.{layer}", f"{MODEL}.layers.{layer}"
        normed = self._norm(x, f"{source}.input_layernorm.weight", f"{place}/input_layernorm")
        x = self.graph.op("Add", [x, self._attention(layer, normed)], f"{place}/attn_residual")
        normed = self._norm(x, f"{source}.post_attention_layernorm.weight", f"{place}/post_attention_layernorm")
        return self.graph.op("Add", [x, self._mlp(layer, normed)], f"{place}/mlp_residual")

    def _norm(self, x: str, weight: str, address: str) -> str:
        scale = self.graph.constant(f"{address}.weight", self.weights.tensor(weight, (self.shape.hidden,)))
        return self.graph.op("RMSNormalization", [x, scale], address, epsilon=self.shape.epsilon, axis=-1)

    def _attention(self, layer: int, normed: str) -> str:
        """
        normed ─┬─ q_proj ─ rotary ────────────────── MatMul ─ ·1/√D ─ + mask ─ Softmax ─ MatMul ─ o_proj
                ├─ k_proj ─ rotary ─ present, past ─────┘                                   │
                └─ v_proj ────────── present, past ─────────────────────────────────────────┘

        The g query heads of a key head are rows of one product: [1, kv_heads, g·S, D] with [1, kv_heads, D, C+S].
        """
        graph, shape, place = self.graph, self.shape, f"layers.{layer}/attn"
        tokens, total = self.sizes.tokens, self.sizes.capacity + self.sizes.tokens
        group = shape.heads // shape.kv_heads
        query = self._rotary(self._heads(layer, normed, "q_proj", shape.heads), f"{place}/q_rotary")
        key = self._rotary(self._heads(layer, normed, "k_proj", shape.kv_heads), f"{place}/k_rotary")
        value = self._heads(layer, normed, "v_proj", shape.kv_heads)
        keys = self._cached(layer, key, "key")  # [1, kv_heads, C+S, D]
        values = self._cached(layer, value, "value")
        rows = graph.shape(query, [1, shape.kv_heads, group * tokens, shape.head_dim], f"{place}/q_groups")
        turned = graph.transpose(keys, [0, 1, 3, 2], f"{place}/k_turned")
        products = graph.op("MatMul", [rows, turned], f"{place}/products")
        root = graph.constant(f"{place}.root", np.array([shape.head_dim**-0.5], np.float32))
        scores = graph.op("Mul", [products, root], f"{place}/scores")
        scores = graph.shape(scores, [1, shape.heads, tokens, total], f"{place}/scores_heads")
        scores = graph.op("Add", [scores, self._mask], f"{place}/masked", encoding=self._masked(scores))
        shares = graph.op("Softmax", [scores], f"{place}/shares", encoding=SHARE, axis=-1)
        shares = graph.shape(shares, [1, shape.kv_heads, group * tokens, total], f"{place}/shares_groups")
        mixed = graph.op("MatMul", [shares, values], f"{place}/mixed")
        mixed = graph.shape(mixed, [1, shape.heads, tokens, shape.head_dim], f"{place}/mixed_heads")
        mixed = graph.transpose(mixed, [0, 2, 1, 3], f"{place}/mixed_tokens")
        mixed = graph.shape(mixed, [1, tokens, shape.query_rows], f"{place}/mixed_rows")
        return self._linear(
            mixed, f"{MODEL}.layers.{layer}.self_attn.o_proj", f"{place}/o_proj", shape.hidden, shape.query_rows,
            shape.out_bias,
        )  # fmt: skip

    def _masked(self, scores: str) -> Encoding:
        """Of scores with the mask on them: known from both; calibration would take the mask for scores."""
        if not self.graph.quantized:
            return SHARE
        seen = self.graph.encoding_of(scores)
        return encoding_of(seen.lowest + self._mask_encoding.lowest, seen.highest)

    def _heads(self, layer: int, normed: str, part: str, heads: int) -> str:
        """One projection as [1, heads, S, D]."""
        shape, place, tokens = self.shape, f"layers.{layer}/attn/{part}", self.sizes.tokens
        source, rows = f"{MODEL}.layers.{layer}.self_attn.{part}", heads * shape.head_dim
        x = self._linear(normed, source, place, rows, shape.hidden, shape.qkv_bias)
        x = self.graph.shape(x, [1, tokens, heads, shape.head_dim], f"{place}/heads")
        return self.graph.transpose(x, [0, 2, 1, 3], f"{place}/heads")

    def _rotary(self, x: str, address: str) -> str:
        graph, size = self.graph, self.shape.head_dim
        first = graph.slice(x, 0, size // 2, 3, f"{address}/first")
        second = graph.slice(x, size // 2, size, 3, f"{address}/second")
        swapped = graph.move("Concat", [second, first], f"{address}/swapped", axis=3)
        straight = graph.op("Mul", [x, self._cos], f"{address}/straight")
        across = graph.op("Mul", [swapped, self._sin], f"{address}/across")
        return graph.op("Add", [straight, across], address)

    def _cached(self, layer: int, new: str, part: str) -> str:
        """Past and new keys or values as one, [1, kv_heads, C+S, D]; the new ones are an output too."""
        graph, shape, sizes, place = self.graph, self.shape, self.sizes, f"layers.{layer}/attn/{part}"
        past, present = (
            (names.past_key(layer), names.present_key(layer))
            if part == "key"
            else (names.past_value(layer), names.present_value(layer))
        )
        encoding = None
        if self._kv_scales is not None:
            scales = self._kv_scales.keys if part == "key" else self._kv_scales.values
            scale = scales[layer]
            assert not isinstance(scale, tuple)
            encoding = kv_encoding(scale)
        before = graph.input(past, [1, shape.kv_heads, sizes.capacity, shape.head_dim], encoding)
        new = graph.rounded(new, f"{place}/new", encoding)
        graph.output(present, new, [1, shape.kv_heads, sizes.tokens, shape.head_dim])
        return graph.move("Concat", [before, new], f"{place}/all", axis=2)

    def _mlp(self, layer: int, normed: str) -> str:
        """
        normed ─┬─ gate_proj ─┬─ Sigmoid ─┐
                │             └────────── Mul ─┐
                └─ up_proj ───────────────────  Mul ─ down_proj
        """
        shape, graph, place = self.shape, self.graph, f"layers.{layer}/mlp"
        source, bias = f"{MODEL}.layers.{layer}.mlp", shape.mlp_bias
        gate, up = (
            self._linear(normed, f"{source}.{part}", f"{place}/{part}", shape.mlp, shape.hidden, bias)
            for part in ("gate_proj", "up_proj")
        )
        opening = graph.op("Sigmoid", [gate], f"{place}/opening", encoding=SHARE)
        opened = graph.op("Mul", [gate, opening], f"{place}/opened")
        product = graph.op("Mul", [opened, up], f"{place}/product")
        return self._linear(product, f"{source}.down_proj", f"{place}/down_proj", shape.hidden, shape.mlp, bias)

    def _linear(self, x: str, source: str, address: str, rows: int, columns: int, bias: bool) -> str:
        return self.graph.linear(x, self.weights.linear(source, rows, columns, bias=bias), address)


def emit_head(graph: NpuGraph, weights: WeightSource, shape: DecoderShape, hidden: Encoding | None) -> None:
    """hidden [1,1,H] ─ lm_head ─ logits [1,1,V]."""
    x = graph.input(HIDDEN, [1, 1, shape.hidden], hidden)
    head = weights.linear(HEAD, shape.vocab, shape.hidden, bias=False)
    graph.output(names.LOGITS, graph.linear(x, head, "lm_head"), [1, 1, shape.vocab])
