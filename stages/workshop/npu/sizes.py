"""What an export for an NPU would take, from shapes alone, and which shapes it cannot have."""

from __future__ import annotations

from stages.artifacts.errors import BluelmError, ModelError
from stages.workshop.graph.checkpoint_weights import HEAD, CheckpointWeights
from stages.workshop.graph.decoder import MODEL
from stages.workshop.graph.graphs import ModelShape
from stages.workshop.graph.vision import CONNECTOR, TOWER
from stages.workshop.npu.checker import rules
from stages.workshop.npu.graphs import NpuModel

HALF_BYTE, BYTE, SCALE_BYTES = 0.5, 1, 2


def context_sizes(weights: CheckpointWeights, model: NpuModel) -> dict[str, int]:
    """Bytes that each context binary makes an NPU address at once: weights, and for the decoder caches and activations.

    Two calls' caches count: what is given and what both graphs hold of it.
    """
    shape = model.shape
    decoder, vision = shape.decoder, shape.vision
    each = _bytes_a_weight(weights, f"{MODEL}.layers.0.self_attn.q_proj")
    layer = 2 * decoder.hidden * (decoder.query_rows + decoder.kv_rows) + 3 * decoder.hidden * decoder.mlp
    cache = 2 * decoder.layers * model.capacity * decoder.kv_rows
    scores = 2 * decoder.heads * model.chunk * (model.capacity + model.chunk)
    head = decoder.vocab * decoder.hidden * _bytes_a_weight(weights, HEAD)
    return {
        "prefill and decode": int(decoder.layers * layer * each) + 2 * cache + 2 * scores,
        "vision": int(vision.parameters * BYTE) + 2 * model.tiles * vision.heads * vision.patches**2 * 2,
        "head": int(head),
    }


def shape_problems(weights: CheckpointWeights, shape: ModelShape) -> list[BluelmError]:
    """Weights that are float, INT4 blocks that a compiler refuses, and parts that the static decoder has not."""
    problems: list[BluelmError] = []
    if shape.decoder.qk_norm or shape.decoder.unturned:
        what = "norms of queries and keys" if shape.decoder.qk_norm else "layers without positions"
        problems.append(
            ModelError(
                f"{weights.folder}: its language model has {what}.",
                "The static decoder for an NPU has none, and would compute something else.",
                "Use a Llama, Mistral or Qwen2 language model, or export it for the CPU: leave out --target npu.",
            )
        )
    layer, block = f"{MODEL}.layers.0", f"{TOWER}.encoder.layers.0"
    linears = {
        f"{layer}.self_attn.q_proj": shape.decoder.hidden,
        f"{layer}.mlp.down_proj": shape.decoder.mlp,
        HEAD: shape.decoder.hidden,
        f"{block}.self_attn.q_proj": shape.vision.width,
        f"{block}.mlp.fc2": shape.vision.mlp,
        f"{CONNECTOR}.linear_2": shape.decoder.hidden,
    }
    for name, columns in linears.items():
        scheme = weights.scheme(name)
        size = scheme.group_size or columns
        if scheme.bits is None:
            problems.append(
                ModelError(
                    f"{weights.folder}: {name} is float.",
                    "An NPU multiplies integers; its compiler would leave this product to the CPU.",
                    "Quantize every Linear: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER",
                )
            )
        elif scheme.bits == 4 and (columns % size or (size != columns and size < rules().smallest_block)):
            problems.append(
                ModelError(
                    f"{weights.folder}: {name} has INT4 blocks of {size} over {columns} columns.",
                    f"NPU compilers take blocks from {rules().smallest_block} on that divide the columns.",
                    "Quantize the checkpoint again with a group_size that divides them.",
                )
            )
    return problems


def _bytes_a_weight(weights: CheckpointWeights, name: str) -> float:
    scheme = weights.scheme(name)
    if scheme.bits != 4:
        return BYTE
    return HALF_BYTE + SCALE_BYTES / (scheme.group_size or 1 << 30)
