"""The norm that Qwen3 gives the queries and keys of every head before it turns them.

Axes: S tokens, D head size.
"""

from __future__ import annotations

from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.emitter import GraphEmitter


def emit_head_norm(emitter: GraphEmitter, x: str, scale: str, address: str, heads: int, shape: DecoderShape) -> str:
    """RMSNorm of each head by itself.

    x [1, S, heads·D] ─ Reshape [1, S, heads, D] ─ RMSNormalization ─ Reshape [1, S, heads·D]

    Args:
        emitter: the graph.
        x: queries or keys.
        scale: the norm's weight [D], which all heads share.
        address: its place in the model.
        heads: of x.
        shape: the decoder's.
    """
    split = emitter.node("Reshape", [x, emitter.const([0, 0, heads, shape.head_dim])], f"{address}/heads")
    normed = emitter.node("RMSNormalization", [split, scale], address, epsilon=shape.epsilon, axis=-1)
    return emitter.node("Reshape", [normed, emitter.const([0, 0, heads * shape.head_dim])], f"{address}/joined")
