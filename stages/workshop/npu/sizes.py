"""What an export for an NPU would take, from shapes alone, and which shapes it cannot have."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Linears of any layer that are float or have INT4 blocks that a compiler refuses; what the decoder cannot be."""
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
    found: dict[tuple[int | None, int], list[str]] = {}
    for name, columns in linears(shape).items():
        scheme = weights.scheme(name)
        size = scheme.group_size or columns
        if scheme.bits is None:
            found.setdefault((None, columns), []).append(name)
        elif scheme.bits == 4 and (columns % size or (size != columns and size < rules().smallest_block)):
            found.setdefault((size, columns), []).append(name)
    floats = [name for (size, _), names in found.items() if size is None for name in names]
    if floats:
        problems.append(
            ModelError(
                f"{weights.folder}: {_named(floats)} float.",
                "An NPU multiplies integers; its compiler would leave such a product to the CPU.",
                "Quantize every Linear: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER",
            )
        )
    problems += [
        ModelError(
            f"{weights.folder}: {_named(names, 'has', 'have')} INT4 blocks of {size} over {columns} columns.",
            f"NPU compilers take blocks from {rules().smallest_block} on that divide the columns.",
            "Quantize the checkpoint again with a group_size that divides them.",
        )
        for (size, columns), names in found.items()
        if size is not None
    ]
    return problems


def linears(shape: ModelShape) -> dict[str, int]:
    """Columns of every Linear of the static graphs, by name."""
    decoder, vision = shape.decoder, shape.vision
    in_decoder = {f"self_attn.{part}_proj": decoder.hidden for part in "qkv"}
    in_decoder |= {"self_attn.o_proj": decoder.query_rows, "mlp.gate_proj": decoder.hidden}
    in_decoder |= {"mlp.up_proj": decoder.hidden, "mlp.down_proj": decoder.mlp}
    in_tower = {f"self_attn.{part}": vision.width for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
    in_tower |= {"mlp.fc1": vision.width, "mlp.fc2": vision.mlp}
    in_connector = {"fuse": vision.joined} if vision.fuse_linear else {}
    in_connector |= {"linear_1": vision.width if vision.fuse_linear else vision.joined}
    in_connector |= {"linear_2": decoder.hidden}
    return {
        **{f"{MODEL}.layers.{n}.{name}": k for n in range(decoder.layers) for name, k in in_decoder.items()},
        HEAD: decoder.hidden,
        **{f"{TOWER}.encoder.layers.{n}.{name}": k for n in range(vision.layers) for name, k in in_tower.items()},
        **{f"{CONNECTOR}.{name}": k for name, k in in_connector.items()},
    }


def _named(names: Sequence[str], one: str = "is", several: str = "are") -> str:
    """The first of some Linears, how many more there are, and the verb."""
    if len(names) == 1:
        return f"{names[0]} {one}"
    return f"{names[0]} and {len(names) - 1} more Linears {several}"


def _bytes_a_weight(weights: CheckpointWeights, name: str) -> float:
    scheme = weights.scheme(name)
    if scheme.bits != 4:
        return BYTE
    return HALF_BYTE + SCALE_BYTES / (scheme.group_size or 1 << 30)
