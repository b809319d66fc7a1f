"""Static patch embedding and vision graph: a fixed number of tiles, stock operators, no rank above 5.

Axes: T tiles of a call, S tile side, s patches per side, P = s·s, C tower width, D head size, k image tokens per side.

    pixel_values uint8 [T,3,S,S] ─ patch_embed.onnx ─ patch_embeds [T,P,C] ─ vision.onnx ─ image_features [T,k·k,H]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.device.contract import int8_channels, names
from stages.device.contract.static_activations import Encoding
from stages.workshop.graph.patch_embed import SOURCE, WHITE, Normalization, folded_bias, folded_weight
from stages.workshop.graph.vision import CONNECTOR, CONNECTOR_EPSILON, TOWER
from stages.workshop.graph.vision_shape import VisionShape
from stages.workshop.graph.weight_source import WeightSource
from stages.workshop.npu.decoder import SHARE
from stages.workshop.npu.values import NpuGraph

QUICK_GELU = 1.702
# A byte x stands for x/255: the graph takes tiles as they were cut. Products take 16 bits: 257·x stands for the same
# number. (16 bits of the bytes' own scale would be exact too, but the simulator then misses by 0.3 % of the range.)
BYTES = Encoding(float(np.float32(1 / WHITE)), 0, "uint8")
WIDE_BYTES = Encoding(float(np.float32(1 / 65535)), 0, "uint16")


def emit_patch_embed(
    graph: NpuGraph, weights: WeightSource, shape: VisionShape, tiles: int, normalization: Normalization
) -> None:
    """pixel_values ─ 16 bits ─ Conv, INT8 per channel, normalizes too ─ rows of patches ─ + positions ─ patch_embeds.

    The observing form takes values in 0…1.
    """
    side, kernel = shape.tile_size, [shape.patch_size, shape.patch_size]
    emitter = graph.emitter
    pixels = graph.input(names.PIXEL_VALUES, [tiles, 3, side, side], BYTES)
    pixels = graph.rounded(pixels, "pixels", WIDE_BYTES)
    weight = folded_weight(weights, shape, normalization).astype(np.float32)
    stored = int8_channels.quantize(weight.reshape(shape.width, -1))
    rounded = int8_channels.dequantize(stored).astype(np.float64).reshape(weight.shape)
    offset = folded_bias(weights, shape, normalization, rounded)
    parts = [
        emitter.weight("patch_embedding.qweight", stored.values.reshape(weight.shape)),
        emitter.weight("patch_embedding.scales", stored.scales),
    ]
    kernels = emitter.node("DequantizeLinear", parts, "patch_embedding/weight", axis=0)
    step = graph.encoding_of(pixels).scale if graph.quantized else 1.0
    bias = graph.bias("patch_embedding.bias", offset, (stored.scales * np.float32(step)).astype(np.float32))
    planes = graph.op("Conv", [pixels, kernels, bias], "patch_embedding", kernel_shape=kernel, strides=kernel)
    flat = graph.shape(planes, [tiles, shape.width, shape.patches], "flatten")
    rows = graph.transpose(flat, [0, 2, 1], "rows")
    places = weights.tensor(f"{SOURCE}.position_embedding.weight", (shape.patches, shape.width))
    table = graph.constant("position_embedding", places.reshape(1, shape.patches, shape.width))
    placed = graph.op("Add", [rows, table], "placed")
    graph.output(names.PATCH_EMBEDS, placed, [tiles, shape.patches, shape.width])


class StaticVision:
    """The blocks and the connector.

    Args:
        graph: observing or quantized.
        weights: quantized ones.
        shape: tower and connector.
        tiles: of a call.
        patches: the encoding in which patch_embed.onnx hands its output on; None in the observing form.
    """

    def __init__(
        self, graph: NpuGraph, weights: WeightSource, shape: VisionShape, tiles: int, patches: Encoding | None
    ) -> None:
        self.graph, self.weights, self.shape, self.tiles, self._patches = graph, weights, shape, tiles, patches

    def emit(self) -> Iterator[int]:
        """Writes the whole graph, yielding the number of blocks done."""
        shape, graph, tiles = self.shape, self.graph, self.tiles
        x = graph.input(names.PATCH_EMBEDS, [tiles, shape.patches, shape.width], self._patches)
        for layer in range(shape.layers):
            x = self._block(layer, x)
            yield layer + 1
        if shape.post_layernorm:
            x = self._norm(x, f"{TOWER}.post_layernorm", "post_layernorm", shape.width, shape.epsilon)
        graph.output(names.IMAGE_FEATURES, self._connector(x), [tiles, shape.tokens, shape.hidden])

    def _block(self, layer: int, x: str) -> str:
        """
        x ─┬─ norm ─ attention ─ (+) ─┬─ norm ─ fc1 ─ act ─ fc2 ─ (+)
           └──────────────────────┘   └───────────────────────────┘
        """
        source, place, shape = f"{TOWER}.encoder.layers.{layer}", f"layers.{layer}", self.shape
        normed = self._norm(x, f"{source}.layer_norm1", f"{place}/layer_norm1", shape.width, shape.epsilon)
        x = self.graph.op("Add", [x, self._attention(normed, f"{source}.self_attn", f"{place}/attn")], f"{place}/attn")
        normed = self._norm(x, f"{source}.layer_norm2", f"{place}/layer_norm2", shape.width, shape.epsilon)
        inner = self._linear(normed, f"{source}.mlp.fc1", f"{place}/mlp/fc1", shape.mlp, shape.width)
        inner = self._activation(inner, shape.activation, f"{place}/mlp/act_fn")
        outer = self._linear(inner, f"{source}.mlp.fc2", f"{place}/mlp/fc2", shape.width, shape.mlp)
        return self.graph.op("Add", [x, outer], f"{place}/mlp")

    def _attention(self, normed: str, source: str, place: str) -> str:
        """Attention of all patches of a tile to each other, keys and values in 8 bits as in the decoder.

        Qualcomm's compiler takes a product of two 16-bit values too, and rounds one of them by itself.
        """
        graph, shape, tiles = self.graph, self.shape, self.tiles
        size = shape.width // shape.heads
        query, key, value = (
            self._linear(normed, f"{source}.{part}", f"{place}/{part}", shape.width, shape.width)
            for part in ("q_proj", "k_proj", "v_proj")
        )
        query, key, value = (
            graph.transpose(
                graph.shape(x, [tiles, shape.patches, shape.heads, size], f"{place}/{part}_heads"),
                order,
                f"{place}/{part}_heads",
            )
            for x, part, order in (
                (query, "q", [0, 2, 1, 3]),
                (key, "k", [0, 2, 3, 1]),
                (value, "v", [0, 2, 1, 3]),
            )
        )
        key, value = (
            graph.rounded(x, f"{place}/{part}_bytes", dtype="uint8") for x, part in ((key, "k"), (value, "v"))
        )
        products = graph.op("MatMul", [query, key], f"{place}/products")
        root = graph.constant(f"{place}.root", np.array([size**-0.5], np.float32))
        scores = graph.op("Mul", [products, root], f"{place}/scores")
        shares = graph.op("Softmax", [scores], f"{place}/shares", encoding=SHARE, axis=-1)
        mixed = graph.op("MatMul", [shares, value], f"{place}/mixed")
        mixed = graph.transpose(mixed, [0, 2, 1, 3], f"{place}/mixed_tokens")
        mixed = graph.shape(mixed, [tiles, shape.patches, shape.width], f"{place}/mixed_rows")
        return self._linear(mixed, f"{source}.out_proj", f"{place}/out_proj", shape.width, shape.width)

    def _connector(self, x: str) -> str:
        """Downsampler and projector, as `graph/vision.py` draws them."""
        shape, width = self.shape, self.shape.width
        if shape.downsample > 1:
            x, width = self._concat_2x2(x), shape.joined
            x = self._norm(x, f"{CONNECTOR}.norm", "connector/norm", width, CONNECTOR_EPSILON)
            if shape.fuse_linear:
                x, width = self._linear(x, f"{CONNECTOR}.fuse", "connector/fuse", shape.width, width), shape.width
        x = self._linear(x, f"{CONNECTOR}.linear_1", "connector/linear_1", shape.hidden, width)
        x = self._activation(x, shape.connector_activation, "connector/act_fn")
        return self._linear(x, f"{CONNECTOR}.linear_2", "connector/linear_2", shape.hidden, shape.hidden)

    def _concat_2x2(self, x: str) -> str:
        """Every 2×2 patches become one, channels in the order (dy, dx, c); (dx, c) lie side by side, so 5 axes do.

        [T, s·s, C] ─ [T, s, s, C] ─ (Pad) ─ [T, k, 2, k, 2·C] ─ Transpose [T, k, k, 2, 2·C] ─ [T, k·k, 4C]
        """
        shape, graph, tiles, place = self.shape, self.graph, self.tiles, "connector/concat"
        step, side, short = shape.downsample, shape.token_side, shape.token_side * shape.downsample - shape.side
        x = graph.shape(x, [tiles, shape.side, shape.side, shape.width], f"{place}/grid")
        if short:
            x = graph.move("Pad", [x, graph.emitter.const([0, 0, 0, 0, 0, short, short, 0])], f"{place}/pad")
        x = graph.shape(x, [tiles, side, step, side, step * shape.width], f"{place}/blocks")
        order = [0, 1, 3, 2, 4] if shape.rows_first else [0, 3, 1, 2, 4]
        x = graph.transpose(x, order, f"{place}/blocks")
        return graph.shape(x, [tiles, shape.tokens, shape.joined], f"{place}/tokens")

    def _norm(self, x: str, source: str, address: str, width: int, epsilon: float) -> str:
        scale, bias = (
            self.graph.constant(f"{address}.{part}", self.weights.tensor(f"{source}.{part}", (width,)))
            for part in ("weight", "bias")
        )
        return self.graph.op("LayerNormalization", [x, scale, bias], address, epsilon=epsilon, axis=-1)

    def _activation(self, x: str, name: str, address: str) -> str:
        if name == "quick_gelu":
            rate = self.graph.constant(f"{address}.rate", np.array([QUICK_GELU], np.float32))
            opening = self.graph.op(
                "Sigmoid", [self.graph.op("Mul", [x, rate], f"{address}/rate")], address, encoding=SHARE
            )
            return self.graph.op("Mul", [x, opening], address)
        if name == "relu":
            return self.graph.op("Relu", [x], address)
        return self.graph.op("Gelu", [x], address, approximate="none" if name == "gelu" else "tanh")

    def _linear(self, x: str, source: str, address: str, rows: int, columns: int) -> str:
        return self.graph.linear(x, self.weights.linear(source, rows, columns, bias=True), address)
