"""prefill.json and its graphs: a prompt read layer by layer over the weights of a decoder.onnx that is there already.

Whether a decoder can be read so is decided here: every Linear of its layers must be INT4 in blocks whose scales are on
a two-level grid (`int4_blocks.split_scales`) or INT8 per channel, with activations in INT8 or INT16.

Axes: N output rows, K input columns, B block length, G = K/B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from stages.device.contract import int4_blocks, names, prefill_layout
from stages.device.contract.activations import Activations
from stages.device.contract.prefill_layout import PREFILL_DATA_FILE, PrefillLayer, PrefillLayout, PrefillLinear
from stages.device.contract.tensor_ref import MappedFile, TensorRef
from stages.workshop.graph import prefill_layer
from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.external_data import ExternalData
from stages.workshop.graph.prefill_layer import KEY_VALUE, PACKED, QUERY, LinearForm, PrefillLayerEmitter
from stages.workshop.graph.rotary import RotaryTables

# Where decoder.onnx has a layer's Linears, by their names here.
ADDRESSES = {
    PACKED: "attn/qkv_proj",
    QUERY: "attn/q_proj",
    prefill_layer.KEY: "attn/k_proj",
    prefill_layer.VALUE: "attn/v_proj",
    prefill_layer.OUT: "attn/o_proj",
    prefill_layer.GATE: "mlp/gate_proj",
    prefill_layer.UP: "mlp/up_proj",
    prefill_layer.DOWN: "mlp/down_proj",
}


@dataclass(frozen=True)
class _Found:
    """A Linear of the decoder: where its weights lie, and how they are multiplied."""

    linear: PrefillLinear
    form: LinearForm


def write_prefill(
    out: Path, shape: DecoderShape, rotary: RotaryTables, activations: Mapping[str, Activations]
) -> PrefillLayout | None:
    """Writes prefill.json, prefill.data and the layer graphs beside a decoder.onnx.

    Args:
        out: the folder.
        shape: the decoder's.
        rotary: cos and sin of every position up to the longest context.
        activations: precision of the inputs of each Linear, by its address in the decoder (`layers.0/attn/qkv_proj`).

    Returns:
        The layout; None, with nothing written, where a Linear has no INT8 product and decoder.onnx reads the prompts.
    """
    decoder = _DecoderTensors(out)
    with ExternalData(out / PREFILL_DATA_FILE) as file:
        data = _Data(file)
        found = [_linears(decoder, data, f"layers.{layer}", activations) for layer in range(shape.layers)]
        layers = [linears for linears in found if linears is not None]
        if len(layers) == shape.layers:
            layers[-1] = _keys_and_values(layers[-1], data, shape)
            norms = [_norms(decoder, data, shape, n) for n in range(shape.layers)]
    if len(layers) < shape.layers:
        (out / PREFILL_DATA_FILE).unlink(missing_ok=True)
        return None
    graphs = _write_graphs(out, shape, rotary, layers, list(decoder.refs.values()))
    layout = PrefillLayout(
        layers=tuple(
            PrefillLayer(graph=graph, linears={name: one.linear for name, one in linears.items()}, norms=places)
            for graph, linears, places in zip(graphs, layers, norms, strict=True)
        )
    )
    layout.write(out)
    return layout


def _write_graphs(
    out: Path,
    shape: DecoderShape,
    rotary: RotaryTables,
    layers: Sequence[Mapping[str, _Found]],
    shared: Sequence[TensorRef],
) -> Iterator[str]:
    """One graph for each combination of forms, and one for the last layer; gives each layer's file."""
    written: dict[tuple[Any, ...], str] = {}
    for index, linears in enumerate(layers):
        last = index == len(layers) - 1
        forms = {name: one.form for name, one in linears.items()}
        turned = shape.turns(index)
        key = (last, turned, *sorted(forms.items(), key=lambda item: item[0]))
        if key not in written:
            written[key] = f"prefill-{len(written)}.onnx"
            with GraphEmitter(out, written[key], "/model/layer", shared) as emitter:
                nodes = PrefillLayerEmitter(emitter, shape, rotary, forms, turned=turned)
                nodes.emit_last() if last else nodes.emit()
                emitter.save()
        yield written[key]


def _linears(
    decoder: _DecoderTensors, data: _Data, layer: str, activations: Mapping[str, Activations]
) -> dict[str, _Found] | None:
    """All Linears of one layer; None where one of them cannot be multiplied in INT8."""
    found: dict[str, _Found] = {}
    for name, address in ADDRESSES.items():
        precision = activations.get(f"{layer}/{address}")
        if precision is None:
            continue
        linear = (
            None
            if precision in ("float", "float16")
            else _linear(decoder, data, f"model.{layer}.{address.replace('/', '.')}")
        )
        if linear is None or precision == "float" or precision == "float16":
            return None
        form = LinearForm(linear.rows, linear.columns, precision, linear.bias is not None)
        found[name] = _Found(linear, form)
    return found


def _linear(decoder: _DecoderTensors, data: _Data, place: str) -> PrefillLinear | None:
    blocks = decoder.refs.get(f"{place}.MatMulNBits.qweight")
    if blocks is not None and decoder.bits[f"{place}.MatMulNBits.qweight"] == 4:
        scales = int4_blocks.split_scales(decoder.array(f"{place}.MatMulNBits.scales"))
        columns = decoder.columns[f"{place}.MatMulNBits.qweight"]
        if scales is None or columns != 2 * blocks.shape[1] * blocks.shape[2]:
            return None
        return PrefillLinear(
            values=blocks,
            channel=data.append(scales.channel),
            steps=data.append(np.ascontiguousarray(scales.steps.T)),
            bias=data.append_if_any(decoder.array_if_any(f"{place}.MatMulNBits.bias")),
        )
    channels = decoder.refs.get(f"{place}.MatMulIntegerToFloat.qweight")
    if channels is None:
        return None
    return PrefillLinear(
        values=channels,
        channel=data.append(decoder.array(f"{place}.MatMulIntegerToFloat.scales")),
        bias=data.append_if_any(decoder.array_if_any(f"{place}.MatMulIntegerToFloat.bias")),
    )


def _keys_and_values(linears: Mapping[str, _Found], data: _Data, shape: DecoderShape) -> dict[str, _Found]:
    """What the last layer needs: keys and values, which in a packed weight are the rows behind the queries'."""
    if PACKED not in linears:
        return {name: linears[name] for name in (prefill_layer.KEY, prefill_layer.VALUE)}
    whole, first = linears[PACKED], shape.query_rows
    values, steps, bias = whole.linear.values, whole.linear.steps, whole.linear.bias
    if steps is None:
        # [K, N]: the columns behind the queries' are not one piece, so they are written again.
        cut = data.append(np.ascontiguousarray(data.read(values)[:, first:]))
    else:
        rows = (whole.linear.rows - first, *values.shape[1:])
        row_bytes = values.nbytes // whole.linear.rows
        cut = values.model_copy(update={"offset": values.offset + first * row_bytes, "shape": rows})
    part = PrefillLinear(
        values=cut,
        channel=data.append(data.read(whole.linear.channel)[first:]),
        steps=steps and data.append(np.ascontiguousarray(data.read(steps)[:, first:])),
        bias=bias and data.append(data.read(bias)[first:]),
    )
    form = LinearForm(part.rows, part.columns, whole.form.precision, whole.form.bias)
    return {KEY_VALUE: _Found(part, form)}


def _norms(decoder: _DecoderTensors, data: _Data, shape: DecoderShape, layer: int) -> dict[str, TensorRef]:
    """The last layer ends at its keys: it has no use for what lies behind them, nor for queries."""
    last = layer == shape.layers - 1
    wanted = [prefill_layout.INPUT_NORM] if last else [prefill_layout.INPUT_NORM, prefill_layout.ATTENTION_NORM]
    if shape.qk_norm:
        wanted += [prefill_layout.KEY_NORM] if last else [prefill_layout.QUERY_NORM, prefill_layout.KEY_NORM]
    return {name: data.append(decoder.array(f"model.layers.{layer}.{name}")) for name in wanted}


class _DecoderTensors:
    """decoder.onnx's initializers: where the large ones lie, and the values of the small ones."""

    def __init__(self, folder: Path) -> None:
        model = onnx.load(folder / names.DECODER_FILE, load_external_data=False)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.refs = {name: _ref(tensor) for name, tensor in self._initializers.items() if uses_external_data(tensor)}
        self.bits, self.columns = {}, {}
        for node in model.graph.node:
            if node.op_type == "MatMulNBits":
                attributes = {attribute.name: attribute.i for attribute in node.attribute}
                self.bits[node.input[1]], self.columns[node.input[1]] = attributes["bits"], attributes["K"]
        self._folder = folder

    def array(self, name: str) -> NDArray[Any]:
        ref = self.refs.get(name)
        if ref is None:
            return numpy_helper.to_array(self._initializers[name])
        return MappedFile(self._folder / ref.file).array(ref)

    def array_if_any(self, name: str) -> NDArray[Any] | None:
        return self.array(name) if name in self._initializers else None


def _ref(tensor: onnx.TensorProto) -> TensorRef:
    place = ExternalDataInfo(tensor)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return TensorRef(file=place.location, offset=place.offset or 0, shape=tuple(tensor.dims), dtype=dtype)


class _Data:
    """prefill.data while it is written."""

    def __init__(self, file: ExternalData) -> None:
        self._file = file

    def append(self, array: NDArray[Any]) -> TensorRef:
        return self._file.append(array)

    def append_if_any(self, array: NDArray[Any] | None) -> TensorRef | None:
        return None if array is None else self.append(array)

    def read(self, ref: TensorRef) -> NDArray[Any]:
        """A tensor that was appended, or that lies in another file of the folder."""
        self._file.flush()
        return MappedFile(self._file.path.with_name(ref.file)).array(ref)
