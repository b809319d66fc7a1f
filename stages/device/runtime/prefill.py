"""Compact prefill: a prompt read layer by layer, INT4 weights in memory and INT8 products (Sec. 3.4).

    for each layer:   expand its weights to INT8 ─ run every chunk of the prompt through it ─ keep its keys and values

All chunks of a layer come before the next layer, so each weight is expanded once a prompt. The weights are those of
decoder.onnx, mapped into memory and let go of after their layer. Keys and values of the layer being read are float32;
an INT8 cache takes them, rounded, when the layer ends.

Shapes: T new positions, P positions already in the cache, H model width, K kv heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import ModelError
from stages.device.contract import int8_kv, prefill_layout
from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.kv_scales import KvScales, read_kv_scales
from stages.device.contract.prefill_layout import PrefillLayer, PrefillLayout, PrefillLinear, read_prefill_layout
from stages.device.contract.tensor_ref import Dtype, MappedFile, TensorRef, map_files
from stages.device.runtime.cache import KVCache
from stages.device.runtime.expansion import Expander
from stages.device.runtime.sessions import BINDING, REMAKE, Graph, Port, available_threads, buffer_of, check_finite

# Fewer positions do not earn back what expanding the weights takes.
SHORTEST = 128
Floats = NDArray[np.float32]
# numpy's names of types and onnxruntime's.
_TYPES = {dtype: f"tensor({dtype})" for dtype in get_args(Dtype)} | {"float32": "tensor(float)"}


class CompactPrefill:
    """The layer graphs of an exported model.

    Args:
        folder: the exported model.
        layout: its prefill.json.
        spec: the decoder's shape.
        threads: None takes every core.

    Attributes:
        shortest: so many new positions, or fewer, are better read by decoder.onnx.

    Raises:
        ModelError: a graph or a file of weights is missing, damaged, or does not fit the layout.
    """

    def __init__(self, folder: Path, layout: PrefillLayout, spec: DecoderSpec, threads: int | None = None) -> None:
        self.layout, self.spec, self.shortest = layout, spec, SHORTEST
        self._folder, self._threads = folder, threads or available_threads()
        self._graphs = self._opened()
        self._files = map_files(folder, [ref for layer in layout.layers for ref in layer.refs])
        for layer in layout.layers:
            for ref in layer.refs:
                self._array(ref)
        channels = spec.num_key_value_heads * spec.head_dim
        self._scales = read_kv_scales(folder, spec.num_layers, channels) if spec.kv_dtype == "int8" else None

    def read(self, embeds: Floats, cache: KVCache, past: int, chunk: int) -> None:
        """Puts the keys and values of T positions into the cache, behind the P that are there.

        Args:
            embeds: [T, H], at least one position.
            cache: with room for P + T positions.
            past: P.
            chunk: positions per run of a layer's graph; changes the speed, not the numbers.

        Raises:
            ModelError: a graph stops with an error, or computes NaN.
        """
        self._graphs = self._graphs or self._opened()
        try:
            self._read(np.array(embeds, np.float32), cache, past, chunk)
        except BaseException:  # also an interrupt
            # Only a graph's last run gives its arena back; what stopped before leaves it to the session's end.
            self._graphs = {}
            for file in self._files.values():
                file.release_all()
            raise

    def _read(self, hidden: Floats, cache: KVCache, past: int, chunk: int) -> None:
        """As `read`; hidden [T, H] is overwritten layer by layer."""
        last_use = {layer.graph: index for index, layer in enumerate(self.layout.layers)}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="prefill") as pool:
            weights = _LayerWeights(self._files, Expander(pool, self._threads))
            keys_values = _KeysValues(cache, self._scales, past, len(hidden), pool)
            for index, layer in enumerate(self.layout.layers):
                tensors = weights.of(layer)
                keys_values.open(index)
                run = _Run(self._graphs[layer.graph], tensors, keys_values)
                for start in range(0, len(hidden), chunk):
                    end = min(start + chunk, len(hidden))
                    run(hidden, start, end, last=end == len(hidden) and last_use[layer.graph] == index)
                keys_values.close(index)
                weights.release()
        # NaN stays in the residual; in an INT8 cache it would look like any number.
        check_finite(hidden, self._graphs[self.layout.layers[0].graph].path)

    def _opened(self) -> dict[str, Graph]:
        """Every graph by its name, held against the layout."""
        layers = self.layout.layers
        # Between two layers the cores belong to the expansion of weights.
        graphs = {
            name: Graph(self._folder / name, self._threads, rests=True, arena=True)
            for name in sorted({layer.graph for layer in layers})
        }
        for index, layer in enumerate(layers):
            _check(graphs[layer.graph], layer, self.spec, last=index == len(layers) - 1)
        return graphs

    def _array(self, ref: TensorRef) -> NDArray[Any]:
        return self._files[ref.file].array(ref)


def load_prefill(folder: Path, spec: DecoderSpec, threads: int | None = None) -> CompactPrefill | None:
    """The compact prefill of an exported model; None where it has none (float weights, scales on no grid).

    Raises:
        ModelError: see `CompactPrefill`.
    """
    layout = read_prefill_layout(folder, spec.num_layers)
    return None if layout is None else CompactPrefill(folder, layout, spec, threads)


def _check(graph: Graph, layer: PrefillLayer, spec: DecoderSpec, *, last: bool) -> None:
    """Holds a layer's graph against what it is given and what is taken from it.

    Raises:
        ModelError: they differ.
    """
    hidden = Port("tensor(float)", (1, None, spec.hidden_size))
    cache = Port("tensor(float)", (1, spec.num_key_value_heads, None, spec.head_dim))
    inputs = {name: Port(_TYPES[dtype], shape) for name, (dtype, shape) in layer.tensors.items()}
    inputs[prefill_layout.HIDDEN_STATES] = hidden
    if prefill_layout.PAST_LENGTH in graph.inputs:  # only where rotary is outside of attention
        inputs[prefill_layout.PAST_LENGTH] = Port("tensor(int64)", (1,))
    outputs = {prefill_layout.PRESENT_KEY: cache, prefill_layout.PRESENT_VALUE: cache}
    if not last:
        inputs |= {prefill_layout.PAST_KEY: cache, prefill_layout.PAST_VALUE: cache}
        inputs |= {
            prefill_layout.SEQLENS_K: Port("tensor(int32)", (1,)),
            prefill_layout.TOTAL_LENGTH: Port("tensor(int32)", ()),
        }
        outputs[prefill_layout.OUTPUT_STATES] = hidden
    graph.check(inputs, outputs, prefill_layout.PREFILL_FILE)
    if last and prefill_layout.OUTPUT_STATES in graph.outputs:
        raise ModelError(
            f"{graph.path}: the last layer has the output {prefill_layout.OUTPUT_STATES}.",
            f"{prefill_layout.PREFILL_FILE} gives it another layer's graph: the last one ends at its keys and values.",
            REMAKE,
        )


class _LayerWeights:
    """INT8 weights of one layer at a time, in buffers that all layers share."""

    def __init__(self, files: dict[str, MappedFile], expander: Expander) -> None:
        self._files, self._expander = files, expander
        self._buffers: dict[tuple[str, tuple[int, int]], NDArray[np.int8]] = {}

    def of(self, layer: PrefillLayer) -> dict[str, NDArray[Any]]:
        """The layer's tensors by the names of its graph's inputs."""
        tensors = {name: self._array(ref) for name, ref in layer.norms.items()}
        for name, linear in layer.linears.items():
            tensors[f"{name}.weight"] = self._weight(name, linear)
            tensors[f"{name}.scales"] = self._array(linear.channel)
            if linear.bias is not None:
                tensors[f"{name}.bias"] = self._array(linear.bias)
        return tensors

    def release(self) -> None:
        """Lets go of the pages that the layer took."""
        for file in self._files.values():
            file.release_all()

    def _weight(self, name: str, linear: PrefillLinear) -> NDArray[np.int8]:
        stored = self._array(linear.values)
        if linear.steps is None:
            return stored
        shape = (linear.columns, linear.rows)
        if (name, shape) not in self._buffers:
            self._buffers[name, shape] = np.empty(shape, np.int8)
        self._expander(stored, self._array(linear.steps), self._buffers[name, shape])
        return self._buffers[name, shape]

    def _array(self, ref: TensorRef) -> NDArray[Any]:
        return self._files[ref.file].array(ref)


class _KeysValues:
    """Float keys and values of one layer: the cache's own where it is float, else a scratch that all layers share."""

    def __init__(self, cache: KVCache, scales: KvScales | None, past: int, new: int, pool: ThreadPoolExecutor) -> None:
        self.cache, self.past, self._scales, self._pool = cache, past, scales, pool
        self._total = past + new
        spec = cache.spec
        shape = (1, spec.num_key_value_heads, self._total, spec.head_dim)
        self._scratch = None if scales is None else (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        self.pair = self._scratch or (cache.keys(0), cache.values(0))

    def open(self, layer: int) -> None:
        """Makes the layer's past positions float."""
        if self._scratch is None:
            self.pair = self.cache.keys(layer), self.cache.values(layer)
        elif self.past:
            self._each_head(layer, self._load)

    def close(self, layer: int) -> None:
        """Hands the layer's new positions to the cache."""
        if self._scratch is not None:
            self._each_head(layer, self._store)

    def _each_head(self, layer: int, act: Any) -> None:
        assert self._scales is not None
        stored = self.cache.keys(layer), self.cache.values(layer)
        heads = self.cache.spec.num_key_value_heads
        sides = zip(self.pair, stored, self._scales.arrays(layer, heads), strict=True)
        tasks = [
            self._pool.submit(act, floats[0, head], integers[0, head], scale[min(head, len(scale) - 1)])
            for floats, integers, scale in sides
            for head in range(heads)
        ]
        for task in tasks:
            task.result()

    def _load(self, floats: Floats, integers: NDArray[np.int8], scale: Floats) -> None:
        floats[: self.past] = int8_kv.dequantize(integers[: self.past], scale)  # [P, D]

    def _store(self, floats: Floats, integers: NDArray[np.int8], scale: Floats) -> None:
        new = slice(self.past, self._total)
        with np.errstate(invalid="ignore"):  # NaN is told when the prompt is read, see `_read`
            integers[new] = int8_kv.quantize(floats[new], scale)  # [T, D]


class _Run:
    """One layer's graph with its weights bound."""

    def __init__(self, graph: Graph, tensors: dict[str, NDArray[Any]], keys_values: _KeysValues) -> None:
        self._graph, self._keys_values = graph, keys_values
        self._inputs = graph.inputs
        with graph.explained(BINDING):
            self._binding = graph.session.io_binding()
            for name, array in tensors.items():
                self._binding.bind_input(name, *buffer_of(array))
        self._tensors = tensors
        self._makes_output = prefill_layout.OUTPUT_STATES in graph.outputs

    def __call__(self, hidden: Floats, start: int, end: int, *, last: bool = False) -> None:
        """Positions start … end of [T, H]: replaces them by the layer's output; keys and values go to their place.

        After the `last` run of a graph its activations' memory is given back.
        """
        past, size = self._keys_values.past, end - start
        feeds: dict[str, NDArray[Any]] = {
            prefill_layout.HIDDEN_STATES: hidden[None, start:end],  # [1, S, H]
            prefill_layout.SEQLENS_K: np.array([past + end - 1], np.int32),
            prefill_layout.TOTAL_LENGTH: np.array(past + end, np.int32),
            prefill_layout.PAST_LENGTH: np.array([past + start], np.int64),
        }
        feeds |= zip((prefill_layout.PAST_KEY, prefill_layout.PAST_VALUE), self._keys_values.pair, strict=True)
        results: dict[str, NDArray[Any]] = {}
        if self._makes_output:
            results[prefill_layout.OUTPUT_STATES] = np.empty((1, size, hidden.shape[1]), np.float32)
        results |= dict(self._cache_results(size))
        with self._graph.explained(BINDING):
            for name, array in feeds.items():
                if name in self._inputs:
                    self._binding.bind_input(name, *buffer_of(array))
            for name, array in results.items():
                self._binding.bind_output(name, *buffer_of(array))
        self._graph.run_bound(self._binding, last=last)
        if self._makes_output:
            hidden[start:end] = results[prefill_layout.OUTPUT_STATES][0]
        else:
            self._take(results, past + start, past + end)

    def _cache_results(self, size: int) -> Iterator[tuple[str, NDArray[Any]]]:
        """Where keys and values go: in place, or for the last layer this chunk's own."""
        present = prefill_layout.PRESENT_KEY, prefill_layout.PRESENT_VALUE
        if self._makes_output:
            return zip(present, self._keys_values.pair, strict=True)
        _, heads, _, width = self._keys_values.pair[0].shape
        return zip(present, (np.empty((1, heads, size, width), np.float32) for _ in present), strict=True)

    def _take(self, results: dict[str, NDArray[Any]], start: int, end: int) -> None:
        for whole, name in zip(
            self._keys_values.pair, (prefill_layout.PRESENT_KEY, prefill_layout.PRESENT_VALUE), strict=True
        ):
            check_finite(results[name], self._graph.path)
            whole[:, :, start:end] = results[name]
