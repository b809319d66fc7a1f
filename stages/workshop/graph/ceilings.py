"""One bare product as a graph, for what a machine reaches at most: float32, and 8-bit integers as they are.

    rows float32 [M, K] ─ MatMul ─ product float32 [M, N]
    rows uint8 [M, K] ─ MatMulInteger ─ product int32 [M, N]

Axes: M rows, K input and N output columns. The names are those that `stages.measure.ceilings` feeds and fetches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from stages.workshop.graph.emitter import FLOAT, INT32, GraphEmitter

ROWS, PRODUCT = "rows", "product"
FILES = {"float32": "float32.onnx", "int8": "int8.onnx"}
# The unsigned input's zero point, as that of the contract's activations.
ZERO_POINT = 128


def write_ceilings(folder: Path, columns: int, outputs: int, seed: int = 0) -> None:
    """Writes both graphs, with random weights [K, N], into an existing folder."""
    rng = np.random.default_rng(seed)
    with GraphEmitter(folder, FILES["float32"], "/ceiling") as emitter:
        rows = emitter.input(ROWS, FLOAT, ["M", columns])
        emitter.output(PRODUCT, FLOAT, ["M", outputs])
        weight = emitter.weight("weight", rng.standard_normal((columns, outputs), dtype=np.float32))
        emitter.node("MatMul", [rows, weight], "", outputs=[PRODUCT])
        emitter.save()
    with GraphEmitter(folder, FILES["int8"], "/ceiling") as emitter:
        rows = emitter.input(ROWS, TensorProto.UINT8, ["M", columns])
        emitter.output(PRODUCT, INT32, ["M", outputs])
        weight = emitter.weight("weight", rng.integers(-127, 128, (columns, outputs), dtype=np.int8))
        zero = emitter.weight("zero", np.array(ZERO_POINT, np.uint8))
        emitter.node("MatMulInteger", [rows, weight, zero], "", outputs=[PRODUCT])
        emitter.save()
