"""`bluelm export`: a checkpoint becomes ONNX graphs, each held against torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.commands import export_gguf, export_npu
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.export import ExportPlan

MEBIBYTE = 1 << 20


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A quantized folder, or a float checkpoint.")],
    out: Out = None,
    max_context: Annotated[
        int | None, typer.Option("--max-context", help="Longest prompt and answer together (default: 4096 at most).")
    ] = None,
    kv: Annotated[
        str | None, typer.Option("--kv", help="KV cache: int8 (default where it has scales) or float32.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Fix the tiles per call of the vision graphs (default: any).")
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            "--activations", help="Inputs of products: policy (as the folder says), int8, int16, float16 or float."
        ),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option("--embedding", help="Embedding table: stored, float16, int8 or int4.")
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Compare with torch (default: yes); for an NPU, on its simulator."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Relative difference from torch that fails (default: 2e-3).")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="onnx, which onnxruntime-genai opens too; or gguf, for llama.cpp.")
    ] = "onnx",
    target: Annotated[
        str, typer.Option("--target", help="cpu: graphs for bluelm chat. npu: static QDQ graphs for a phone's NPU.")
    ] = "cpu",
    data: Annotated[
        Path | None, typer.Option("--data", help="For an NPU: a corpus whose prompts calibrate its integers.")
    ] = None,
    soc: Annotated[
        list[str] | None,
        typer.Option("--soc", help="For an NPU: compile for this chip too, as snapdragon-8-gen-3 (repeatable)."),
    ] = None,
    qnn_python: Annotated[
        Path | None,
        typer.Option("--qnn-python", help="An interpreter that has onnxruntime-qnn (default: this one)."),
    ] = None,
    recipe: Recipe = None,
    sets: Set = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write ONNX graphs that run without torch, each compared with torch; or static ones for a phone's NPU.

    Example: bluelm export build/model-int4 --out build/model-onnx
    """
    from stages import export as stage
    from stages.artifacts.recipes import load_config

    flags = {
        "max_context": max_context,
        "kv": kv,
        "batch": batch,
        "activations": activations,
        "embedding": embedding,
        "verify": verify,
        "tolerance": tolerance,
    }
    npu_flags = {"data": data, "soc": soc, "qnn_python": qnn_python}
    asked = {**flags, **npu_flags, "target": target if target != "cpu" else None}
    if export_gguf.wanted(format_, asked):
        export_gguf.export(checkpoint, out, recipe, sets or (), force=force, dry_run=dry_run, as_json=as_json)
        return
    if export_npu.wanted(target, flags, npu_flags):
        shown = export_npu.Shown(dry_run, as_json)
        export_npu.export(checkpoint, out, flags, data, soc or (), qnn_python, recipe, sets or (), force, shown)
        return
    config = load_config(stage.ExportConfig, recipe, sets or (), flags)
    if dry_run:
        _show_plan(stage.plan(config, checkpoint), as_json)
        return
    if out is None:
        raise UsageError("--out is missing.", "The graphs need a folder.", "Add --out FOLDER, or look with --dry-run.")
    result = console.drive(stage.run(config, checkpoint, out, force=force))
    if as_json:
        console.emit_json(result.as_dict())
        return
    if result.checks:
        columns = ["graph", "output", "largest difference", "relative", "as exported", "simulated"]
        keys = ("graph", "output", "max_abs", "relative", "arithmetic", "simulated")
        console.emit_table("Difference from torch", columns, [[check[key] for key in keys] for check in result.checks])
    rows = [[name, round(size / MEBIBYTE, 2)] for name, size in result.files.items()]
    console.emit_table(f"{result.out}", ["file", "MiB"], rows)


def _show_plan(plan: ExportPlan, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan.as_dict())
        return
    rows = [[name, round(size / MEBIBYTE, 2)] for name, size in plan.files.items()]
    decoder = plan.device.decoder
    title = f"{plan.device.name}: context {decoder.max_context}, {decoder.kv_dtype} KV cache"
    console.emit_table(title, ["file", "MiB (about)"], rows)
