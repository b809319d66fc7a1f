"""Whether one QDQ artifact is fast on a CPU too: one product four ways, in turns, on random weights.

    OMP_NUM_THREADS=2 python recipes/npu_cpu_speed.py --rows 128 --columns 2304 --width 5760

| way | what |
|---|---|
| MatMulNBits | the CPU export's form, accuracy level 4 |
| QDQ, fused | INT4 DequantizeLinear → MatMul with onnxruntime's optimizations, activations through QuantizeLinear |
| QDQ, weights alone | the same without QuantizeLinear on activations |
| QDQ, as written | no optimizations: what the simulation runs |
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from stages.device.contract import int4_blocks
from stages.device.contract.static_activations import encoding_of
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import emit_linear
from stages.workshop.graph.qdq import emit_qdq_weight
from stages.workshop.npu.values import NpuGraph


def main() -> None:
    """Prints milliseconds, ratios to MatMulNBits and the operators that were left, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 128), ("columns", 2304), ("width", 5760), ("block", 128), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(json.dumps(measured(flags, Path(scratch)), indent=2) + "\n")


def measured(flags: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Medians of paired ratios; every way runs once a round."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((flags.width, flags.columns), dtype=np.float32) / np.float32(flags.columns**0.5)
    linear = Linear(int4_blocks.quantize(values, flags.block))
    x = rng.standard_normal((1, flags.rows, flags.columns), dtype=np.float32)
    shapes = [1, flags.rows, flags.columns], [1, flags.rows, flags.width]
    with GraphEmitter(folder, "nbits.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, shapes[0])
        emitter.output("y", FLOAT, shapes[1])
        emit_linear(emitter, "x", linear, "part", "y")
        emitter.save()
    with GraphEmitter(folder, "weights.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, shapes[0])
        emitter.output("y", FLOAT, shapes[1])
        emitter.node("MatMul", ["x", emit_qdq_weight(emitter, linear.weight, "part")], "part", outputs=["y"])
        emitter.save()
    with GraphEmitter(folder, "qdq.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, shapes[0])
        emitter.output("y", FLOAT, shapes[1])
        graph = NpuGraph(emitter, {"part/MatMul": encoding_of(-5, 5), "in": encoding_of(-6, 6)})
        product = graph.linear(graph.rounded("x", "in"), linear, "part")
        emitter.node("Identity", [product], "out", outputs=["y"])
        emitter.save()
    ways = {
        "MatMulNBits": session(folder / "nbits.onnx", folder),
        "QDQ, fused": session(folder / "qdq.onnx", folder),
        "QDQ, weights alone": session(folder / "weights.onnx", folder),
        "QDQ, as written": session(folder / "qdq.onnx", folder, optimize=False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(flags.rounds + 1):
        for name, (one, _) in ways.items():
            started = time.perf_counter()
            one.run(["y"], {"x": x})
            times[name].append(time.perf_counter() - started)
    base = times["MatMulNBits"][1:]
    return {
        "product": f"{flags.rows}×{flags.columns}×{flags.width}, INT4 block {flags.block}",
        **{
            name: {
                "ms": round(1e3 * statistics.median(times[name][1:]), 2),
                "times MatMulNBits": round(
                    statistics.median(mine / theirs for mine, theirs in zip(times[name][1:], base, strict=True)), 2
                ),
                "operators": ways[name][1],
            }
            for name in ways
        },
    }


def session(path: Path, folder: Path, *, optimize: bool = True) -> tuple[ort.InferenceSession, list[str]]:
    """A session and the operators that onnxruntime left in it."""
    import onnx

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    kept = folder / f"kept-{path.stem}-{optimize}.onnx"
    options.optimized_model_filepath = str(kept)
    made = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(kept, load_external_data=False).graph
    return made, [node.op_type for node in graph.node]


if __name__ == "__main__":
    main()
