"""Peak memory of a quantized model once it is exported, from the bytes of its files and its shape.

The model's own parts alone: what a runtime takes beside, `bench estimate` knows of devices it was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from stages.device.contract import names
from stages.device.contract.prefill_layout import PREFILL_DATA_FILE
from stages.measure.estimate_counts import counts_of
from stages.measure.estimate_device import Overheads
from stages.measure.estimate_memory import memory_over_time, peak_of
from stages.measure.estimate_plan import Case
from stages.measure.estimate_shape import ModelShape


def predicted_peak(
    shape: ModelShape, files: Mapping[str, int], kv: Literal["int8", "float32"], context: int
) -> dict[str, Any]:
    """The stage that needs most memory: `context` positions, `peak_mb`, `stage` and `parts` in MB of 10^6 bytes.

    Args:
        shape: of the model.
        files: bytes by name of file, as the export would write them.
        kv: what the cache holds.
        context: positions read and written together, filled by as many tiles as fit, nine at most.
    """
    context = min(context, shape.context)
    generate = min(64, context // 2)
    tiles = min(9, (context - generate) // max(1, shape.tiling.tokens_per_tile))
    case = Case(kv=kv, tiles=tiles, prompt_tokens=context - generate, generate=generate)
    counts = counts_of(shape, case)
    decoder = _data(files, names.DECODER_FILE) + files.get(PREFILL_DATA_FILE, 0)
    table = _data(files, names.EMBEDDING_FILE)
    counts = replace(
        counts,
        vision_bytes=_data(files, names.PATCH_EMBED_FILE) + _data(files, names.VISION_FILE),
        layer_bytes=max(0, decoder - counts.head_bytes) // counts.layers,
        embedding_bytes=table,
    )
    expands = PREFILL_DATA_FILE in files
    shape = replace(shape, tied=not table)
    peak = peak_of(memory_over_time(shape, case, counts, Overheads(), expands))
    parts = {name: round(size, 3) for name, size in peak.parts.items() if size}
    return {"context": context, "peak_mb": round(peak.total, 3), "stage": peak.stage, "parts": parts}


def _data(files: Mapping[str, int], graph: str) -> int:
    return files.get(f"{graph}.data", 0)
