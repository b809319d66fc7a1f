"""Memory over time: what is resident at each stage's peak, part by part.

    start ─ load ─ encode ─ free ─ prefill ─ decode

Weights are loaded once and stay, the tower until it is freed. Prefill holds, beside the KV cache as far as it is
filled, one layer's weights unpacked to INT8 (and the pages they come from), float32 keys and values of that layer where
the cache is INT8, two copies of the prompt's hidden states, and the activations of one chunk. MB are 10^6 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.measure.estimate_counts import Counts
from stages.measure.estimate_device import Overheads
from stages.measure.estimate_plan import Case
from stages.measure.estimate_shape import ModelShape

MB = 1e6
STAGES = ("load", "encode", "free", "prefill", "decode")


@dataclass(frozen=True)
class Moment:
    """A stage at its peak: MB by part."""

    stage: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def memory_over_time(
    shape: ModelShape, case: Case, counts: Counts, overheads: Overheads, expands: bool
) -> list[Moment]:
    """The peak of every stage.

    Args:
        shape, case, counts: the configuration.
        overheads: what the runtime takes beside.
        expands: prompts are read with one layer's weights unpacked, see `Device`.
    """
    language = overheads.packed * counts.language_bytes / MB
    tower = overheads.packed * counts.vision_bytes / MB
    held = {"runtime": overheads.process_mb, "language weights": language}
    if not shape.tied:
        held["embedding"] = counts.embedding_bytes / MB
    loaded = {**held, "vision weights": tower}
    spike = overheads.load_spike * counts.head_bytes / MB
    encoding = _encoding(shape, case, overheads)
    moments = [
        Moment("load", {**loaded, "packing": spike}),
        Moment("encode", {**loaded, "vision activations": encoding} if case.tiles else loaded),
    ]
    features = case.tiles * shape.tiling.tokens_per_tile * counts.position_bytes / MB
    if case.free_vision:
        rest = {**held, "kept of encoding": overheads.kept_mb}
    else:
        rest = {**loaded, "vision activations": encoding}
    rest["image features"] = features
    moments.append(Moment("free", dict(rest)))
    cache = {"KV cache": counts.kv_bytes * case.prompt_tokens / MB}
    moments.append(Moment("prefill", {**rest, **cache, **_prefilling(shape, case, counts, overheads, expands)}))
    written = {"KV cache": counts.kv_bytes * (case.prompt_tokens + case.generate) / MB}
    moments.append(Moment("decode", {**rest, **written}))
    return moments


def peak_of(moments: list[Moment]) -> Moment:
    """The stage that needs most."""
    return max(moments, key=lambda moment: moment.total)


def passes_of(case: Case) -> int:
    """2 where the inputs of products are INT16: their high part and the remainder lie side by side."""
    return 2 if case.policy == "paper" else 1


def encode_parts(shape: ModelShape, case: Case) -> tuple[float, float]:
    """How many tiles' activations are held for the first batch, and again for a second of the same size.

    Both in tiles of the 3B shape: activations grow with patches times width.
    """
    first = min(case.tiles, case.tiles_per_batch)
    again = first if case.tiles >= 2 * case.tiles_per_batch else 0
    size = shape.patches * (shape.vision_width + shape.vision_mlp) / (729 * (1152 + 4304))
    return first * size, again * size / passes_of(case)


def _encoding(shape: ModelShape, case: Case, overheads: Overheads) -> float:
    first, again = encode_parts(shape, case)
    return first * overheads.tile_mb + again * overheads.repeat_mb


def chunk_tokens(shape: ModelShape, case: Case) -> float:
    """Tokens whose activations a chunk holds, in tokens of the 3B shape."""
    size = (shape.width + shape.mlp) / (2304 + 5760)
    return min(case.chunk, case.prompt_tokens) * passes_of(case) * size


def prefill_buffers(shape: ModelShape, case: Case, counts: Counts, expands: bool) -> dict[str, float]:
    """What reading a prompt holds by construction, in MB."""
    parts = {"hidden states": 2 * case.prompt_tokens * counts.position_bytes / MB}
    if expands:
        parts["unpacked layer"] = counts.layer_weights / MB
        parts["pages of the layer"] = counts.layer_bytes / MB
        if case.kv == "int8":
            parts["float keys and values"] = 2 * 4 * case.prompt_tokens * shape.kv_heads * shape.head_dim / MB
    return parts


def _prefilling(shape: ModelShape, case: Case, counts: Counts, overheads: Overheads, expands: bool) -> dict[str, float]:
    activations = overheads.prefill_mb + overheads.chunk_mb * chunk_tokens(shape, case)
    return {**prefill_buffers(shape, case, counts, expands), "chunk activations": activations}
