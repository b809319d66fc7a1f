"""patch_embed.onnx: pixels to patch embeddings with positions, the part that runs beside the ViT blocks (Sec. 3.2).

It takes the bytes of tiles as they are cut. What the picture processor makes of a byte x, (x / 255 - mean) / std, is
linear, and so is the convolution: the one is folded into the other's weights. No patch touches the border of its tile,
so this is exact but for the rounding of float32.

Axes: T tiles, S tile side in pixels, s patches per side, P = s·s, C tower width, p side of a patch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract import names
from stages.workshop.graph.emitter import FLOAT, UINT8, Dim, GraphEmitter
from stages.workshop.graph.linear import Floats
from stages.workshop.graph.vision_shape import VisionShape
from stages.workshop.graph.weight_source import WeightSource

SOURCE = "vision_tower.embeddings"
# A white byte.
WHITE = 255
Wide = NDArray[np.float64]


class Normalization(NamedTuple):
    """What the tower was trained to see of a value in 0…1: (value - mean) / std, per channel of RGB."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def folded_weight(weights: WeightSource, shape: VisionShape, normalization: Normalization) -> Wide:
    """The patch embedding's weight over values in 0…1 instead of normalized ones: w/std [C,3,p,p].

    Σ w·((v - mean)/std) + b  =  Σ (w/std)·v + (b - Σ (w/std)·mean)
    """
    kernel = (shape.width, 3, shape.patch_size, shape.patch_size)
    weight = weights.tensor(f"{SOURCE}.patch_embedding.weight", kernel)
    return weight / np.asarray(normalization.std, np.float64).reshape(3, 1, 1)


def folded_bias(weights: WeightSource, shape: VisionShape, normalization: Normalization, weight: Wide) -> Floats:
    """The bias beside a folded weight [C,3,p,p]: [C].

    Where the weight was rounded, this is the bias beside the rounded one: so a picture's mean colour is as exact as
    before, and rounding acts on what differs from it.
    """
    bias = weights.tensor(f"{SOURCE}.patch_embedding.bias", (shape.width,))
    mean = np.asarray(normalization.mean, np.float64).reshape(3, 1, 1)
    shifted: Floats = (bias - (weight * mean).sum((1, 2, 3))).astype(np.float32)
    return shifted


def emit_patch_embed(
    emitter: GraphEmitter, weights: WeightSource, shape: VisionShape, tiles: Dim, normalization: Normalization
) -> None:
    """Writes the graph; `tiles` is a number for a fixed batch or a word for a free one.

    pixel_values uint8 [T,3,S,S] ─ Cast ─ Conv [T,C,s,s] ─ Reshape [T,C,P] ─ Transpose [T,P,C] ─ Add positions
                                                                                                   └─ patch_embeds
    """
    side = shape.tile_size
    pixels = emitter.input(names.PIXEL_VALUES, UINT8, [tiles, 3, side, side])
    emitter.output(names.PATCH_EMBEDS, FLOAT, [tiles, shape.patches, shape.width])
    kernel = [shape.patch_size, shape.patch_size]
    weight = folded_weight(weights, shape, normalization)
    bias = folded_bias(weights, shape, normalization, weight)
    positions = weights.tensor(f"{SOURCE}.position_embedding.weight", (shape.patches, shape.width))
    # Where the patch does not divide the tile, the kernel leaves the rest of it out, as the tower does.
    planes = emitter.node(
        "Conv",
        [
            emitter.node("Cast", [pixels], "pixels", to=FLOAT),
            emitter.weight("vision.embeddings.patch_embedding.weight", (weight / WHITE).astype(np.float32)),
            emitter.weight("vision.embeddings.patch_embedding.bias", bias),
        ],
        "patch_embedding",
        kernel_shape=kernel,
        strides=kernel,
    )  # [T, C, s, s]
    flat = emitter.node("Reshape", [planes, emitter.const([0, shape.width, shape.patches])], "flatten")  # [T, C, P]
    rows = emitter.node("Transpose", [flat], "flatten", perm=[0, 2, 1])  # [T, P, C]
    table = emitter.weight("vision.embeddings.position_embedding.weight", positions)
    emitter.node("Add", [rows, table], "position_embedding", outputs=[names.PATCH_EMBEDS])
