"""One graph written in two forms: float with its ranges observed, or QDQ with the ranges that were.

Both have the same nodes at the same addresses, so that what calibration saw of `layers.0/attn/scores/MatMul` is the
range of that very value:

    observing    x ─ op ─ y                  and  y ─ ReduceMin, ReduceMax ─ lows [n], highs [n]
    quantized    x ─ op ─ QuantizeLinear ─ DequantizeLinear ─ y
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from stages.artifacts.errors import ModelError
from stages.device.contract.npu_config import PortSpec
from stages.device.contract.static_activations import Encoding, StoredType, encoding_of, round_static
from stages.workshop.graph.emitter import FLOAT, INLINE_BYTES, GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.qdq import emit_qdq_weight

LOWS, HIGHS = "lows", "highs"
ELEMENTS = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}
Encodings = Mapping[str, Encoding]


class NpuGraph:
    """Adds operators to a graph and rounds, or watches, what each gives.

    Args:
        emitter: the graph.
        encodings: of every value by its key (`address/Operator`); None for the observing form.
    """

    def __init__(self, emitter: GraphEmitter, encodings: Encodings | None) -> None:
        self.emitter = emitter
        self._encodings = encodings
        self._of: dict[str, Encoding] = {}
        self._watched: dict[str, str] = {}
        self._types: dict[str, StoredType] = {}
        self.inputs: dict[str, PortSpec] = {}
        self.outputs: dict[str, PortSpec] = {}

    @property
    def quantized(self) -> bool:
        """Whether values are rounded."""
        return self._encodings is not None

    @property
    def watched(self) -> dict[str, StoredType]:
        """The watched values and what they will be stored as, in the order of LOWS and HIGHS."""
        return dict(self._types)

    def input(self, name: str, shape: Sequence[int], encoding: Encoding | None = None) -> str:
        """A graph input that arrives as integers; its range is observed unless an encoding is fixed."""
        found = self._encoding(f"inputs/{name}", encoding)
        if found is None:
            self.emitter.input(name, FLOAT, shape)
            return self._watch(f"inputs/{name}", name, encoding)
        self.emitter.input(name, ELEMENTS[found.dtype], shape)
        self.inputs[name] = _port(shape, found)
        return self._dequantized(name, found, f"inputs/{name}")

    def output(self, name: str, value: str, shape: Sequence[int]) -> None:
        """A graph output, as the integers that the value was rounded to."""
        if not self.quantized:
            self.emitter.node("Identity", [value], f"outputs/{name}", outputs=[name])
            self.emitter.output(name, FLOAT, shape)
            return
        found = self._of[value]
        self.emitter.node("QuantizeLinear", [value, *self._parts(found)], f"outputs/{name}", outputs=[name])
        self.emitter.output(name, ELEMENTS[found.dtype], shape)
        self.outputs[name] = _port(shape, found)

    def op(
        self, op: str, inputs: Sequence[str], address: str, *, encoding: Encoding | None = None, **attributes: Any
    ) -> str:
        """An operator whose result is rounded: to `encoding` where it is known beforehand, else to what was seen."""
        value = self.emitter.node(op, inputs, address, **attributes)
        return self.rounded(value, f"{address}/{op}", encoding)

    def move(self, op: str, inputs: Sequence[str], address: str, **attributes: Any) -> str:
        """An operator that only moves numbers: its result keeps the first input's encoding."""
        value = self.emitter.node(op, inputs, address, **attributes)
        if not self.quantized:
            return value
        return self._pair(value, self._of[inputs[0]], f"{address}/{op}")

    def rounded(self, value: str, key: str, encoding: Encoding | None = None, dtype: StoredType = "uint16") -> str:
        """A value through the integers of an encoding; `dtype` where its range is to be observed."""
        found = self._encoding(key, encoding)
        return self._watch(key, value, encoding, dtype) if found is None else self._pair(value, found, key)

    def shape(self, x: str, sizes: Sequence[int], address: str) -> str:
        """x in another shape."""
        return self.move("Reshape", [x, self.emitter.const(list(sizes))], address)

    def transpose(self, x: str, order: Sequence[int], address: str) -> str:
        """x with its axes in another order."""
        return self.move("Transpose", [x], address, perm=list(order))

    def slice(self, x: str, start: int, end: int, axis: int, address: str) -> str:
        """Part of x along one axis."""
        bounds = [self.emitter.const([number]) for number in (start, end, axis)]
        return self.move("Slice", [x, *bounds], address)

    def constant(self, name: str, values: NDArray[Any], encoding: Encoding | None = None) -> str:
        """Numbers of the model that stay as they are: rounded to their own range."""
        if not self.quantized:
            return self.emitter.weight(name, values)
        found = encoding or encoding_of(float(values.min()), float(values.max()))
        stored = round_static(values, found)
        place = f"{name}.stored"
        if stored.nbytes < INLINE_BYTES or stored.dtype == np.uint8:
            self.emitter.weight(place, stored)
        else:
            self.emitter.packed_weight(place, stored.reshape(-1).view(np.uint8), ELEMENTS[found.dtype], stored.shape)
        return self._dequantized(place, found, f"constants/{name}")

    def linear(self, x: str, linear: Linear, address: str) -> str:
        """x [.., K] → [.., N]; the weight is the one that is stored, in both forms.

        Raises:
            ModelError: the weight is float.
        """
        weight = linear.weight
        if isinstance(weight, np.ndarray):
            raise ModelError(
                f"The weights of {address} are float.",
                "An NPU multiplies integers.",
                "Quantize the checkpoint first: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER",
            )
        product = self.op("MatMul", [x, emit_qdq_weight(self.emitter, weight, address)], address)
        if linear.bias is None:
            return product
        return self.op("Add", [product, self.constant(f"{address}.bias", linear.bias)], address)

    def bias(self, name: str, values: NDArray[Any], scales: NDArray[Any]) -> str:
        """A bias as INT32 in steps of input scale · weight scale, what convolutions add before they round."""
        if not self.quantized:
            return self.emitter.weight(name, values)
        steps = np.rint(values / scales)
        stored = np.clip(steps, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)
        inputs = [self.emitter.weight(f"{name}.stored", stored), self.emitter.weight(f"{name}.scales", scales)]
        inputs.append(self.emitter.weight(f"{name}.zeros", np.zeros(len(stored), np.int32)))
        return self.emitter.node("DequantizeLinear", inputs, f"constants/{name}", axis=0)

    def encoding_of(self, value: str) -> Encoding:
        """What a value was rounded to."""
        return self._of[value]

    def save(self) -> None:
        """Writes the graph; the observing form gives all ranges as two more outputs."""
        if self._watched:
            for name, op in ((LOWS, "ReduceMin"), (HIGHS, "ReduceMax")):
                parts = [self._scalar(op, value, key) for key, value in self._watched.items()]
                self.emitter.node("Concat", parts, name, outputs=[name], axis=0)
                self.emitter.output(name, FLOAT, [len(parts)])
        self.emitter.save()

    def _scalar(self, op: str, value: str, key: str) -> str:
        least = self.emitter.node(op, [value], f"watch/{key}", keepdims=0)
        return self.emitter.node("Reshape", [least, self.emitter.const([1])], f"watch/{key}/{op}")

    def _encoding(self, key: str, fixed: Encoding | None) -> Encoding | None:
        if self._encodings is None:
            return None
        return fixed or self._encodings[key]

    def _watch(self, key: str, value: str, fixed: Encoding | None, dtype: StoredType = "uint16") -> str:
        if fixed is None:
            assert key not in self._watched, key
            self._watched[key], self._types[key] = value, dtype
        return value

    def _pair(self, value: str, encoding: Encoding, place: str) -> str:
        stored = self.emitter.node("QuantizeLinear", [value, *self._parts(encoding)], place)
        return self._dequantized(stored, encoding, place)

    def _dequantized(self, stored: str, encoding: Encoding, place: str) -> str:
        value = self.emitter.node("DequantizeLinear", [stored, *self._parts(encoding)], place)
        self._of[value] = encoding
        return value

    def _parts(self, encoding: Encoding) -> list[str]:
        zero = self.emitter.const(encoding.zero, encoding.dtype)
        return [self.emitter.const(float(np.float32(encoding.scale)), "float32"), zero]


def _port(shape: Sequence[int], encoding: Encoding) -> PortSpec:
    return PortSpec(shape=tuple(shape), dtype=encoding.dtype, scale=encoding.scale, zero=encoding.zero)
