"""vision.onnx: the ViT's blocks and the connector, from patch embeddings to image tokens.

Axes: T tiles, P patches per tile (s·s, s per side), C tower width, K image tokens per tile (k·k), H LLM width.

    patch_embeds [T, P, C] ─ block 0 ─ … ─ block n-1 ─ (post_layernorm) ─┬─ connector ─ image_features [T, K, H]
                                                                         └─ vit_features [T, P, C]

vit_features costs nothing where it is not asked for: onnxruntime only copies the outputs a call names. Where it alone
is asked for, the connector runs all the same, which is about 1 % of 27 layers: not worth a second graph in each export.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from stages.device.contract import names
from stages.workshop.graph.emitter import FLOAT, Dim, GraphEmitter
from stages.workshop.graph.int8_attention import emit_int8_attention
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import emit_linear, emit_linears, form_of
from stages.workshop.graph.vision_shape import ACTIVATIONS, VisionShape
from stages.workshop.graph.weight_source import WeightSource

TOWER = "vision_tower"
CONNECTOR = "multi_modal_projector"
# torch's default, which the connector's norm has.
CONNECTOR_EPSILON = 1e-5


def attention_form(linears: Iterable[Linear]) -> Literal["float", "int8"]:
    """How q, k and v are multiplied with each other: in INT8 where what made all of them was, in float32 otherwise."""
    return "int8" if all(form_of(linear) == "a8" for linear in linears) else "float"


class VisionEmitter:
    """The vision graph's nodes: one method per subgraph."""

    def __init__(
        self, emitter: GraphEmitter, weights: WeightSource, shape: VisionShape, *, exact: bool = False
    ) -> None:
        self.emitter, self.weights, self.shape, self.exact = emitter, weights, shape, exact

    def emit(self, tiles: Dim) -> Iterator[int]:
        """Writes the whole graph, yielding the number of layers done; see the module's drawing."""
        shape, emitter = self.shape, self.emitter
        x = emitter.input(names.PATCH_EMBEDS, FLOAT, [tiles, shape.patches, shape.width])
        emitter.output(names.IMAGE_FEATURES, FLOAT, [tiles, shape.tokens, shape.hidden])
        emitter.output(names.VIT_FEATURES, FLOAT, [tiles, shape.patches, shape.width])
        residual, branch = x, ""
        for layer in range(shape.layers):
            residual, branch = self._block(layer, residual, branch)
            yield layer + 1
        self._connector(self._features(residual, branch))

    def _block(self, layer: int, residual: str, branch: str) -> tuple[str, str]:
        """One encoder layer; the sum of the two streams it gives is its output.

        residual ─┬─ (+) ─┬─────────────────── (+) ─┬──────────── residual
        branch ───┘       └─ norm ─ attention ──┘   └─ norm ─ mlp ─ branch
        """
        source, place, shape = f"{TOWER}.encoder.layers.{layer}", f"layers.{layer}", self.shape
        normed, residual = self._norm(residual, branch, f"{source}.layer_norm1", f"{place}/layer_norm1")  # [T, P, C]
        attended = self._attention(normed, f"{source}.self_attn", f"{place}/attn")
        normed, residual = self._norm(residual, attended, f"{source}.layer_norm2", f"{place}/layer_norm2")
        inner = self._linear(normed, f"{source}.mlp.fc1", f"{place}/mlp/fc1", shape.mlp, shape.width)
        inner = self._activation(inner, shape.activation, f"{place}/mlp/act_fn")
        return residual, self._linear(inner, f"{source}.mlp.fc2", f"{place}/mlp/fc2", shape.width, shape.mlp)

    def _attention(self, normed: str, source: str, place: str) -> str:
        """Attention of all patches of a tile to each other.

                 ┌─ q_proj ─┐
        normed ──┼─ k_proj ─┼─ MultiHeadAttention, or its products in INT8 ─ out_proj
                 └─ v_proj ─┘
        """
        shape, emitter, width = self.shape, self.emitter, self.shape.width
        linears = {
            f"{place}/{part}": self.weights.linear(f"{source}.{part}", width, width, bias=True)
            for part in ("q_proj", "k_proj", "v_proj")
        }
        heads = emit_linears(emitter, normed, linears, exact=self.exact)
        if self.exact or attention_form(linears.values()) == "float":
            attended = emitter.microsoft("MultiHeadAttention", heads, place, num_heads=shape.heads)  # [T, P, C]
        else:
            sizes = {"number": shape.heads, "size": width // shape.heads, "positions": shape.patches}
            attended = emit_int8_attention(emitter, heads, place, **sizes)
        return self._linear(attended, f"{source}.out_proj", f"{place}/out_proj", width, width)

    def _features(self, residual: str, branch: str) -> str:
        """The tower's output under its public name: the sum of both streams, normalized where the model says so."""
        if self.shape.post_layernorm:
            self._norm(residual, branch, f"{TOWER}.post_layernorm", "post_layernorm", output=names.VIT_FEATURES)
        elif branch:
            self.emitter.node("Add", [residual, branch], "features", outputs=[names.VIT_FEATURES])
        else:
            self.emitter.node("Identity", [residual], "features", outputs=[names.VIT_FEATURES])
        return names.VIT_FEATURES

    def _connector(self, features: str) -> None:
        """Downsampler and projector.

        vit_features ─ concat_2x2 ─ norm ─ (fuse) ─┐          mlp_downsample
        vit_features ──────────────────────────────┴─ linear_1 ─ act ─ linear_2 ─ image_features
        """
        shape, x, width = self.shape, features, self.shape.width
        if shape.downsample > 1:
            joined = self._concat_2x2(x)
            x, _ = self._norm(
                joined, "", f"{CONNECTOR}.norm", "connector/norm", width=shape.joined, epsilon=CONNECTOR_EPSILON
            )
            width = shape.joined
            if shape.fuse_linear:
                x = self._linear(x, f"{CONNECTOR}.fuse", "connector/fuse", shape.width, width)
                width = shape.width
        x = self._linear(x, f"{CONNECTOR}.linear_1", "connector/linear_1", shape.hidden, width)
        x = self._activation(x, shape.connector_activation, "connector/act_fn")
        last = self.weights.linear(f"{CONNECTOR}.linear_2", shape.hidden, shape.hidden, bias=True)
        emit_linear(self.emitter, x, last, "connector/linear_2", names.IMAGE_FEATURES, exact=self.exact)

    def _concat_2x2(self, x: str) -> str:
        """Every 2×2 patches become one, channels in the order (dy, dx, c); odd sides get zeros right and below.

        Tokens go row by row (y, x) or, as in VILA's weights, column by column (x, y).

        [T, s·s, C] ─ Reshape [T, s, s, C] ─ (Pad) [T, 2k, 2k, C] ─ Reshape [T, k, 2, k, 2, C]
                                         ─ Transpose [T, k, k, 2, 2, C] ─ Reshape [T, k·k, 4C]
        """
        shape, emitter, place = self.shape, self.emitter, "connector/concat"
        step, side, short = shape.downsample, shape.token_side, shape.token_side * shape.downsample - shape.side
        x = emitter.node("Reshape", [x, emitter.const([0, shape.side, shape.side, shape.width])], f"{place}/grid")
        if short:
            x = emitter.node("Pad", [x, emitter.const([0, 0, 0, 0, 0, short, short, 0])], f"{place}/pad")
        blocks = emitter.const([0, side, step, side, step, shape.width])
        x = emitter.node("Reshape", [x, blocks], f"{place}/blocks")  # [T, k, 2, k, 2, C]
        order = [0, 1, 3, 2, 4, 5] if shape.rows_first else [0, 3, 1, 2, 4, 5]
        x = emitter.node("Transpose", [x], f"{place}/blocks", perm=order)  # [T, k, k, 2, 2, C]
        return emitter.node("Reshape", [x, emitter.const([0, shape.tokens, shape.joined])], f"{place}/tokens")

    def _norm(
        self,
        residual: str,
        branch: str,
        source: str,
        address: str,
        *,
        width: int | None = None,
        epsilon: float | None = None,
        output: str = "",
    ) -> tuple[str, str]:
        """LayerNorm of residual + branch, and that sum; of the residual alone where there is no branch.

        residual ─┐
        branch ───┴─ Add ─┬─ LayerNormalization ─ normed
                          └─ sum

        Two operators, since onnxruntime's SkipLayerNormalization takes five times as long (1.31, recipes/RESULTS.md).
        """
        emitter, size = self.emitter, (width or self.shape.width,)
        epsilon = self.shape.epsilon if epsilon is None else epsilon
        scale, bias = (
            emitter.weight(
                f"{emitter.root.strip('/')}.{address.replace('/', '.')}.{part}",
                self.weights.tensor(f"{source}.{part}", size),
            )
            for part in ("weight", "bias")
        )
        total = emitter.node("Add", [residual, branch], address) if branch else residual
        normed = emitter.node(
            "LayerNormalization",
            [total, scale, bias],
            address,
            outputs=[output] if output else 1,
            epsilon=epsilon,
            axis=-1,
        )
        return normed, total

    def _activation(self, x: str, name: str, address: str) -> str:
        op, attributes = ACTIVATIONS[name]
        emit = self.emitter.microsoft if op == "QuickGelu" else self.emitter.node
        return emit(op, [x], address, **attributes)

    def _linear(self, x: str, source: str, address: str, rows: int, columns: int) -> str:
        linear = self.weights.linear(source, rows, columns, bias=True)
        return emit_linear(self.emitter, x, linear, address, exact=self.exact)
