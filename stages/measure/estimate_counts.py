"""Bytes and operations of a configuration, by formula: what any device has to hold and to do.

A multiplication with its addition counts as two operations. Where products with INT16 inputs are computed as two 8-bit
ones (see `contract/activations`), they count twice.

Axes: N outputs, K inputs of a Linear; P patches of a tile, C tower width; H model width.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.measure.estimate_plan import Case, Policy
from stages.measure.estimate_shape import ModelShape

SCALE_BYTES = 4
KV_BYTES = {"int8": 1, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Counts:
    """What a configuration asks of a device.

    Attributes:
        vision_bytes: weights of patch embedding, tower and connector as stored.
        embedding_bytes: the table, which a tied head shares.
        head_bytes: read for each token.
        layer_bytes: one layer's weights as stored.
        layer_weights: how many they are.
        layers: of the language model.
        kv_bytes: one position, all layers.
        encode_products: 8-bit operations of a tile.
        encode_attention: float operations of a tile's attention.
        prefill_products: 8-bit operations of the prompt.
        prefill_attention: float operations of the prompt's attention, halves above the diagonal left out.
        position_bytes: one position's hidden state in float32.
    """

    vision_bytes: int
    embedding_bytes: int
    head_bytes: int
    layer_bytes: int
    layer_weights: int
    layers: int
    kv_bytes: int
    encode_products: float
    encode_attention: float
    prefill_products: float
    prefill_attention: float
    position_bytes: int

    @property
    def language_bytes(self) -> int:
        """Layers and head, as the decoder's file holds them."""
        return self.layers * self.layer_bytes + self.head_bytes

    @property
    def token_bytes(self) -> int:
        """Weights that one token's step reads."""
        return self.language_bytes


def counts_of(shape: ModelShape, case: Case, int16_passes: float = 2) -> Counts:
    """Counts a configuration of a shape; `int16_passes` is the device's."""
    inner, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer_weights = shape.width * (2 * inner + 2 * kv) + 3 * shape.width * shape.mlp
    down = shape.width * shape.mlp
    table = linear_bytes(shape.vocab, shape.width, case.weight_bits, case.block)
    tower = _vision_weights(shape)
    text_passes = _text_passes(case.policy, down / layer_weights, int16_passes)
    # Rows of the score matrix, one for each query; half of it lies above the diagonal.
    pairs = case.prompt_tokens * (case.prompt_tokens + 1) / 2
    return Counts(
        vision_bytes=_vision_bytes(shape, case.vision_weight_bits),
        embedding_bytes=table,
        head_bytes=table,
        layer_bytes=sum(
            linear_bytes(rows, columns, case.weight_bits, case.block)
            for rows, columns in (
                (inner + 2 * kv, shape.width),
                (shape.width, inner),
                (2 * shape.mlp, shape.width),
                (shape.width, shape.mlp),
            )
        ),
        layer_weights=layer_weights,
        layers=shape.layers,
        kv_bytes=2 * shape.layers * kv * KV_BYTES[case.kv],
        encode_products=2 * (int16_passes if case.policy == "paper" else 1.0) * tower,
        encode_attention=2 * 2 * shape.vision_layers * shape.patches**2 * shape.vision_width,
        prefill_products=2 * text_passes * layer_weights * shape.layers * case.prompt_tokens,
        prefill_attention=2 * 2 * shape.layers * pairs * inner,
        position_bytes=4 * shape.width,
    )


def linear_bytes(rows: int, columns: int, bits: int, block: int | None) -> int:
    """A Linear [N, K] as stored: values and float32 scales, one for each block of K or (None) one for each of N."""
    values = rows * columns * bits // 8
    if bits > 8:
        return values
    groups = 1 if block is None else -(-columns // block)
    return values + SCALE_BYTES * rows * groups


def _text_passes(policy: Policy, share_of_down: float, int16_passes: float) -> float:
    """8-bit products for each wanted one, over all of a layer's Linears; of float inputs, float products."""
    mixed = 1 + (int16_passes - 1) * share_of_down
    return {"paper": int16_passes, "mix": mixed, "int8": 1.0, "float": 1.0}[policy]


def _connector(shape: ModelShape) -> tuple[tuple[int, int], ...]:
    return (shape.width, 4 * shape.vision_width), (shape.width, shape.width)


def _vision_weights(shape: ModelShape) -> float:
    """Multiplications of a tile: every weight of the tower once a patch, of the connector once a token."""
    layer = 4 * shape.vision_width**2 + 2 * shape.vision_width * shape.vision_mlp
    connector = sum(rows * columns for rows, columns in _connector(shape))
    patch = 3 * shape.patch_size**2 * shape.vision_width
    return shape.patches * (shape.vision_layers * layer + patch) + shape.tiling.tokens_per_tile * connector


def _vision_bytes(shape: ModelShape, bits: int) -> int:
    width, mlp = shape.vision_width, shape.vision_mlp
    linears = [*[(width, width)] * 4, (mlp, width), (width, mlp)] * shape.vision_layers
    stored = sum(linear_bytes(rows, columns, bits, None) for rows, columns in [*linears, *_connector(shape)])
    # Patch embedding and positions stay float32.
    return stored + 4 * width * (3 * shape.patch_size**2 + 1 + shape.patches)
