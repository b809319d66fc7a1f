"""patch_embed.onnx: pixels to patch embeddings with positions, the part that runs beside the ViT blocks (Sec. 3.2).

Axes: T tiles, S tile side in pixels, s patches per side, P = s·s, C tower width.
"""

from __future__ import annotations

from stages.device.contract import names
from stages.workshop.graph.emitter import FLOAT, Dim, GraphEmitter
from stages.workshop.graph.vision_shape import VisionShape
from stages.workshop.graph.weight_source import WeightSource

SOURCE = "vision_tower.embeddings"


def emit_patch_embed(emitter: GraphEmitter, weights: WeightSource, shape: VisionShape, tiles: Dim) -> None:
    """Writes the graph; `tiles` is a number for a fixed batch or a word for a free one.

    pixel_values [T,3,S,S] ─ Conv [T,C,s,s] ─ Reshape [T,C,P] ─ Transpose [T,P,C] ─ Add positions ─ patch_embeds
    """
    side = shape.tile_size
    pixels = emitter.input(names.PIXEL_VALUES, FLOAT, [tiles, 3, side, side])
    emitter.output(names.PATCH_EMBEDS, FLOAT, [tiles, shape.patches, shape.width])
    kernel = [shape.patch_size, shape.patch_size]
    weight = weights.tensor(f"{SOURCE}.patch_embedding.weight", (shape.width, 3, *kernel))
    bias = weights.tensor(f"{SOURCE}.patch_embedding.bias", (shape.width,))
    positions = weights.tensor(f"{SOURCE}.position_embedding.weight", (shape.patches, shape.width))
    # Where the patch does not divide the tile, the kernel leaves the rest of it out, as the tower does.
    planes = emitter.node(
        "Conv",
        [
            pixels,
            emitter.weight("vision.embeddings.patch_embedding.weight", weight),
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
