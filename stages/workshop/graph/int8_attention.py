"""Attention with INT8 products, as contract/int8_attention.py defines it, in stock onnxruntime operators.

    q ─ QuantizeLinear ─ Transpose ─┐
    k ─ QuantizeLinear ─ Transpose ─┴─ MatMulIntegerToFloat ─ Softmax ─┬─ ReduceMax ─ Mul ─ step ─┐
                                                                      └─ QuantizeLinear by step ─┤
    v ─ QuantizeLinear ─ Transpose ──────────────────────────────────── MatMulIntegerToFloat ── Mul ─ Transpose

A few heads at a time: the weights of all of them, P² floats a head, would fall out of the cache between any two nodes.

Axes: T tiles, P positions, N heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.device.contract import activations
from stages.device.contract.int8_attention import PROBABILITY_STEPS
from stages.workshop.graph.dynamic_int8 import emit_largest, emit_quantized, emit_step
from stages.workshop.graph.emitter import UINT8, GraphEmitter

# Floats of attention weights, of one tile, that stay in the cache of two cores (measured: recipes/RESULTS.md).
WEIGHTS_AT_ONCE = 9 << 18


def emit_int8_attention(
    emitter: GraphEmitter, heads: Sequence[str], address: str, *, number: int, size: int, positions: int
) -> str:
    """Attention of all positions of a tile to each other.

    Args:
        emitter: the graph.
        heads: names of q, k and v, [T, P, N·D].
        address: the attention's place in the model.
        number: N.
        size: D.
        positions: P.

    Returns:
        The name of [T, P, N·D].
    """
    return _Int8Attention(emitter, address, number, size, positions).emit(*heads)


class _Int8Attention:
    def __init__(self, emitter: GraphEmitter, address: str, number: int, size: int, positions: int) -> None:
        self.emitter, self.address = emitter, address
        self.number, self.size, self.positions = number, size, positions

    def emit(self, q: str, k: str, v: str) -> str:
        emitter, place = self.emitter, self.address
        query_step, key_step, value_step = (
            self._step(q, "q", whole_head=True),  # [T, 1, N]
            self._step(k, "k", whole_head=False),  # [T, P, N]
            self._step(v, "v", whole_head=True),  # [T, 1, N]
        )
        queries = self._quantized(q, self._everywhere(query_step, "q"), "q", "uint8", [0, 2, 1, 3])  # [T, N, P, D]
        keys = self._quantized(k, key_step, "k", "int8", [0, 2, 3, 1])  # [T, N, D, P]
        values = self._quantized(v, self._everywhere(value_step, "v"), "v", "int8", [0, 2, 1, 3])  # [T, N, P, D]
        scale = emitter.node("Mul", [key_step, query_step], f"{place}/logits/qk_step")
        scale = emitter.node("Mul", [scale, emitter.const(self.size**-0.5, "float32")], f"{place}/logits/step")
        logit_scale = self._of_columns(scale, "logits")  # [T, N, 1, P]
        value_scale = self._of_columns(value_step, "v")  # [T, N, 1, 1]
        columns = emitter.const([1, 1, 1, self.size])
        value_scale = emitter.node("Expand", [value_scale, columns], f"{place}/v/columns")  # [T, N, 1, D]
        parts = {"q": queries, "k": keys, "v": values, "logits": logit_scale, "v_step": value_scale}
        groups = zip(*(self._in_groups(part, name) for name, part in parts.items()), strict=True)
        attended = [self._group(group, f"{place}/heads.{index}") for index, group in enumerate(groups)]
        whole = emitter.node("Concat", attended, place, axis=1) if len(attended) > 1 else attended[0]  # [T, N, P, D]
        turned = emitter.node("Transpose", [whole], place, perm=[0, 2, 1, 3])
        return emitter.node("Reshape", [turned, emitter.const([0, 0, self.number * self.size])], place)

    def _group(self, parts: Sequence[str], place: str) -> str:
        """Some heads: q [T, n, P, D] uint8, k [T, n, D, P] and v [T, n, P, D] int8, column scales → [T, n, P, D]."""
        q, k, v, logit_scale, value_scale = parts
        emitter = self.emitter
        one, middle = emitter.const(1.0, "float32"), emitter.const(activations.ZERO_POINT, "uint8")
        logits = emitter.microsoft("MatMulIntegerToFloat", [q, k, one, logit_scale, middle], f"{place}/logits")
        weights = emitter.node("Softmax", [logits], f"{place}/weights", axis=-1)  # [T, n, P, P]
        largest = emitter.node("ReduceMax", [weights, emitter.const([-1])], f"{place}/step", keepdims=1)
        part = emitter.const(1 / PROBABILITY_STEPS, "float32")
        step = emitter.node("Mul", [largest, part], f"{place}/step")  # [T, n, P, 1]
        rounded = emitter.node(
            "QuantizeLinear",
            [weights, step],
            f"{place}/weights",
            axis=-1,
            block_size=self.positions,
            output_dtype=UINT8,
        )
        product = emitter.microsoft("MatMulIntegerToFloat", [rounded, v, one, value_scale], f"{place}/values")
        return emitter.node("Mul", [product, step], f"{place}/values")

    def _step(self, x: str, name: str, *, whole_head: bool) -> str:
        """Steps of x [T, P, N·D]: [T, 1, N] for a whole head, else [T, P, N]."""
        emitter, place = self.emitter, f"{self.address}/{name}/step"
        largest = emit_largest(emitter, self._split(x, f"{place}/heads"), place)  # [T, P, N, 1]
        largest = emitter.node("Squeeze", [largest, emitter.const([-1])], place)
        if whole_head:
            largest = emitter.node("ReduceMax", [largest, emitter.const([1])], f"{place}/head", keepdims=1)
        return emit_step(emitter, largest, place)

    def _everywhere(self, step: str, name: str) -> str:
        """[T, 1, N] → [T, P, N]"""
        shape = self.emitter.const([1, self.positions, 1])
        return self.emitter.node("Expand", [step, shape], f"{self.address}/{name}/step")

    def _quantized(self, x: str, step: str, name: str, element: str, order: Sequence[int]) -> str:
        """x [T, P, N·D] in steps [T, P, N], heads and positions in another order."""
        emitter, place = self.emitter, f"{self.address}/{name}"
        rounded = emit_quantized(emitter, x, step, place, self.size, "uint8" if element == "uint8" else "int8")
        return emitter.node("Transpose", [self._split(rounded, place)], place, perm=list(order))

    def _split(self, x: str, place: str) -> str:
        return self.emitter.node("Reshape", [x, self.emitter.const([0, 0, self.number, self.size])], place)

    def _of_columns(self, step: str, name: str) -> str:
        """[T, p, N] → [T, N, 1, p]: scales of a product's columns."""
        emitter, place = self.emitter, f"{self.address}/{name}/columns"
        return emitter.node(
            "Unsqueeze", [emitter.node("Transpose", [step], place, perm=[0, 2, 1]), emitter.const([2])], place
        )

    def _in_groups(self, x: str, name: str) -> list[str]:
        """[T, N, ..] in groups of heads."""
        groups = self.number // heads_at_once(self.number, self.positions)
        if groups == 1:
            return [x]
        place = f"{self.address}/{name}/groups"
        outputs = [f"{self.emitter.root}/{place}/Split/output_{index}" for index in range(groups)]
        self.emitter.node("Split", [x], place, outputs=outputs, axis=1, num_outputs=groups)
        return outputs


def heads_at_once(number: int, positions: int) -> int:
    """How many heads' weights may be in work together: a divisor of their number."""
    fitting = max(1, WEIGHTS_AT_ONCE // positions**2)
    return max(count for count in range(1, number + 1) if number % count == 0 and count <= fitting)
