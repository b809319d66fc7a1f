"""How large the exported files will be, from headers alone: what `--dry-run` tells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stages.device.contract import int8_channels, names
from stages.device.contract.prefill_layout import PREFILL_DATA_FILE
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD, CheckpointWeights
from stages.workshop.graph.decoder_shape import DecoderShape
from stages.workshop.graph.graphs import GraphOptions, model_shape
from stages.workshop.quant.expandable import LAYERS, reads_compactly
from stages.workshop.quant.packed import PACKED, SUFFIXES
from stages.workshop.quant.policy import Scheme
from stages.workshop.quant.quantized_folder import QuantizedFolder

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

FLOAT_BYTES = 4


def file_sizes(weights: CheckpointWeights, config: BlueLMVConfig, options: GraphOptions) -> dict[str, int]:
    """Bytes of each graph's weights, by file; the graphs themselves are small beside them."""
    sizes = dict.fromkeys(names.GRAPH_FILES, 0)
    used = f"vision_tower.encoder.layers.{model_shape(config, options.max_context).vision.layers}."
    for name, info in weights.infos.items():
        module, _, leaf = name.rpartition(".")
        if (leaf in SUFFIXES and leaf != PACKED) or name.startswith((used, "vision_tower.head.")):
            continue
        scheme, shape = weights.scheme(module), info.shape
        if leaf == PACKED:
            assert scheme.bits is not None
            shape = (shape[0], shape[1] * 32 // scheme.bits)
        half = options.half_embedding and module == EMBEDDING
        stored = _bytes(scheme, shape) if leaf in ("weight", PACKED) else FLOAT_BYTES * math.prod(shape)
        if scheme.bits == 8 and leaf in ("weight", PACKED) and _in_blocks(module, weights, options):
            stored += _block_padding(shape)
        sizes[_graph_of(name)] += stored // (2 if half else 1)
    if weights.tied:
        shape = weights.infos[f"{EMBEDDING}.weight"].shape
        sizes[names.DECODER_FILE] += _bytes(weights.scheme(HEAD), shape)
        if weights.scheme(HEAD).bits == 8 and _in_blocks(HEAD, weights, options):
            sizes[names.DECODER_FILE] += _block_padding(shape)
        table, head = (weights.scheme(module) for module in (EMBEDDING, HEAD))
        if table.bits is not None and (table.bits, table.group_size) == (head.bits, head.group_size):
            # The same bytes: embedding.onnx reads them in the decoder's file.
            del sizes[names.EMBEDDING_FILE]
    decoder = model_shape(config, options.max_context).decoder
    sizes[names.DECODER_FILE] += options.max_context * decoder.head_dim * FLOAT_BYTES
    files = {f"{graph}.data": size for graph, size in sizes.items()}
    if weights.quantized and reads_compactly(QuantizedFolder(weights.folder), options.activations):
        files[PREFILL_DATA_FILE] = _prefill_bytes(weights, decoder)
    return files


def _prefill_bytes(weights: CheckpointWeights, shape: DecoderShape) -> int:
    """prefill.data: norms, and of each Linear the channel scales, the steps of INT4, the bias.

    The last layer's keys and values are there again where they were cut from one product with the queries; of an INT8
    weight with its values.
    """
    total = (2 * shape.layers - 1) * (shape.hidden + (shape.head_dim if shape.qk_norm else 0)) * FLOAT_BYTES
    parts = {
        "self_attn.q_proj": (shape.query_rows, shape.hidden, shape.qkv_bias),
        "self_attn.k_proj": (shape.kv_rows, shape.hidden, shape.qkv_bias),
        "self_attn.v_proj": (shape.kv_rows, shape.hidden, shape.qkv_bias),
        "self_attn.o_proj": (shape.hidden, shape.query_rows, shape.out_bias),
        "mlp.gate_proj": (shape.mlp, shape.hidden, shape.mlp_bias),
        "mlp.up_proj": (shape.mlp, shape.hidden, shape.mlp_bias),
        "mlp.down_proj": (shape.hidden, shape.mlp, shape.mlp_bias),
    }
    for layer in range(shape.layers):
        for part, (rows, columns, bias) in parts.items():
            scheme = weights.scheme(f"{LAYERS}{layer}.{part}")
            own = rows * (FLOAT_BYTES * (1 + bias) + (columns // scheme.group_size if scheme.group_size else 0))
            total += own
            if layer == shape.layers - 1 and shape.packs_qkv and part.endswith(("k_proj", "v_proj")):
                total += own + (0 if scheme.group_size else rows * columns)
    return total


def _graph_of(name: str) -> str:
    if name.startswith("vision_tower.embeddings."):
        return names.PATCH_EMBED_FILE
    if name.startswith(f"{EMBEDDING}."):
        return names.EMBEDDING_FILE
    return names.DECODER_FILE if name.startswith("language_model.") else names.VISION_FILE


def _bytes(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """Values and scales of a weight."""
    if scheme.bits is None:
        return FLOAT_BYTES * math.prod(shape)
    rows, columns = shape
    if scheme.group_size is None:
        return rows * (columns + FLOAT_BYTES)
    blocks = rows * -(-columns // scheme.group_size)
    return blocks * (scheme.group_size * scheme.bits // 8 + FLOAT_BYTES)


def _in_blocks(module: str, weights: CheckpointWeights, options: GraphOptions) -> bool:
    """Whether an INT8 weight lies in blocks that each have the row's scale: table, head, or inputs that stay float."""
    choice = weights.activations(module) if options.activations == "policy" else options.activations
    return module in (EMBEDDING, HEAD) or choice in ("float", "float16")


def _block_padding(shape: tuple[int, ...]) -> int:
    """What blocks add to an INT8 weight: the last one's padding, and the repeated scales."""
    rows, columns = shape
    block = int8_channels.block_length(columns)
    return rows * (-columns % block + FLOAT_BYTES * (-(-columns // block) - 1))
