"""embedding.onnx: token ids to embeddings, a table in float32, float16, INT8 or INT4.

Axes: L tokens, V vocabulary, H hidden, G blocks per row.
"""

from __future__ import annotations

import numpy as np

from stages.device.contract import names
from stages.device.contract.device_config import EmbeddingSpec
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import FLOAT, INT64, GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import packed_blocks

TABLE = "model.embed_tokens"


def emit_embedding(emitter: GraphEmitter, table: Linear, *, half: bool = False) -> EmbeddingSpec:
    """Writes the graph for a table [V, H] and tells where its rows lie: the runtime reads them without the graph.

        input_ids [1, L] ─ Gather ─ (Cast) ─ inputs_embeds [1, L, H]                float32 (float16)
        input_ids [1, L] ─ GatherBlockQuantized ─ (Slice) ─ inputs_embeds [1, L, H]   INT8, INT4

    Slice drops the padding of a row's last block, where there is any.
    """
    _, hidden = table.shape
    ids = emitter.input(names.INPUT_IDS, INT64, [1, "sequence_length"])
    emitter.output(names.INPUTS_EMBEDS, FLOAT, [1, "sequence_length", hidden])
    weight, public = table.weight, [names.INPUTS_EMBEDS]
    if isinstance(weight, Int4Blocks | Int8Channels):
        return _emit_quantized(emitter, ids, weight)
    name = f"{TABLE}.weight"
    values = emitter.outside(name, weight.astype(np.float16) if half else weight)
    if half:
        rows = emitter.node("Gather", [name, ids], "embed_tokens")
        emitter.node("Cast", [rows], "embed_tokens", outputs=public, to=FLOAT)
    else:
        emitter.node("Gather", [name, ids], "embed_tokens", outputs=public)
    return EmbeddingSpec(form="float16" if half else "float32", values=values)


def _emit_quantized(emitter: GraphEmitter, ids: str, weight: Int4Blocks | Int8Channels) -> EmbeddingSpec:
    rows, hidden = weight.values.shape
    bits, block, packed, scales = packed_blocks(weight)
    padded = scales.shape[1] * block != hidden
    # [V, bytes per row] and [V, G], the bytes of a head's MatMulNBits: a tied table is on disk once.
    stored, scaled = f"{TABLE}.qweight", f"{TABLE}.scales"
    spec = EmbeddingSpec(
        form="int4" if bits == 4 else "int8",
        values=emitter.outside(stored, packed.reshape(rows, -1)),
        scales=emitter.outside(scaled, scales),
        block=block,
    )
    whole = emitter.microsoft(
        "GatherBlockQuantized",
        [stored, ids, scaled],
        "embed_tokens",
        outputs=1 if padded else [names.INPUTS_EMBEDS],
        bits=bits,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    if padded:
        start, end, axis = (emitter.const([value]) for value in (0, hidden, 2))
        emitter.node("Slice", [whole, start, end, axis], "embed_tokens", outputs=[names.INPUTS_EMBEDS])
    return spec
