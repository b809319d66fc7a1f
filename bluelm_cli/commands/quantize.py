"""bluelm quantize: INT4 and INT8 weights, INT8 KV scales."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import Device, DryRun, Dtype, Force, Json, Out, Set, Threads

if TYPE_CHECKING:
    from stages.quantize import QuantizeResult
    from stages.workshop.quant.quantize_plan import QuantizePlan
    from stages.workshop.quant.report import PartReport

WORST_LAYERS = 8


class Kv(StrEnum):
    """Precision of the KV cache."""

    int8 = "int8"
    float32 = "float32"


class KvScales(StrEnum):
    """What shares a scale of the INT8 cache."""

    tensor = "tensor"
    head = "head"
    channel = "channel"


class KvMethod(StrEnum):
    """How scales of the INT8 cache are chosen."""

    absmax = "absmax"
    percentile = "percentile"


class Sensitivity(StrEnum):
    """What is quantized alone to see what it costs."""

    none = "none"
    parts = "parts"
    layers = "layers"


class Part(StrEnum):
    """What is written."""

    model = "model"
    llm = "llm"


def quantize(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A float checkpoint.")],
    data: Annotated[Path | None, typer.Option("--data", help="A corpus: real prompts to calibrate with.")] = None,
    out: Out = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="A YAML recipe: a file, or one that comes with bluelm.", show_default="quantize.yaml"
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Prompts to calibrate with.")] = None,
    kv: Annotated[Kv | None, typer.Option("--kv", help="KV cache: int8 (calibrated scales) or float32.")] = None,
    kv_scales: Annotated[
        KvScales | None, typer.Option("--kv-scales", help="What shares a scale of the INT8 cache; tensor by default.")
    ] = None,
    kv_method: Annotated[
        KvMethod | None,
        typer.Option(
            "--kv-method",
            help="How its scales are chosen; absmax, the default, clips nothing, percentile clips outliers.",
        ),
    ] = None,
    activation_budget: Annotated[
        float | None,
        typer.Option(
            "--activation-budget",
            min=0,
            help="Largest RMS of the relative errors that INT8 inputs may have; as few Linears as needed get INT16.",
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option("--questions", min=0, help="Held-out questions that measure what it costs, 64 by default."),
    ] = None,
    sensitivity: Annotated[
        Sensitivity | None,
        typer.Option("--sensitivity", help="Measure one part, or also one layer at a time; parts by default."),
    ] = None,
    part: Annotated[
        Part | None, typer.Option("--part", help="The whole model, or llm: a plain folder any transformers opens.")
    ] = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    sets: Set = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Quantize a checkpoint: INT8 vision and connector, INT4 language model, INT8 KV cache.

    quantize.yaml rounds activations to INT16 as the paper does; quantize-mix.yaml to INT8 where that costs little, and
    quantize-a8.yaml everywhere. quantize-gptq.yaml and quantize-awq.yaml lose less than rounding to the nearest value,
    quantize-block128.yaml gives the smallest model. A run that was stopped goes on where it was.

    Example: bluelm quantize build/stage2 --data build/corpus --out build/int4
    """
    from stages import quantize as stage
    from stages.artifacts.errors import UsageError
    from stages.artifacts.recipes import load_config, shipped_recipe

    flags = {
        "samples": samples,
        "kv": kv and kv.value,
        "part": part and part.value,
        "dtype": dtype,
        "activation_budget": activation_budget,
    }
    nested = {
        "kv_scales.granularity": kv_scales and kv_scales.value,
        "kv_scales.method": kv_method and kv_method.value,
        "measure.questions": questions,
        "measure.sensitivity": sensitivity and sensitivity.value,
    }
    given = [*(sets or ()), *(f"{name}={value}" for name, value in nested.items() if value is not None)]
    config = load_config(stage.QuantizeConfig, recipe or shipped_recipe("quantize.yaml"), given, flags)
    if dry_run:
        _show_plan(stage.plan(config, checkpoint), as_json)
        return
    if out is None:
        raise UsageError("--out is missing.", "The quantized folder needs a place.", "Add --out FOLDER")
    result = console.drive(
        stage.run(config, checkpoint, data, out, device=device or "cpu", threads=threads, force=force)
    )
    _show_result(result, as_json)


def _show_plan(plan: QuantizePlan, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan.as_dict())
        return
    rows = []
    for tensor in plan.weights.tensors:
        scheme = f"{tensor.scheme} (at export: {tensor.at_export})" if tensor.at_export else str(tensor.scheme)
        shape = "×".join(map(str, tensor.shape))
        method = tensor.method or ""
        rows.append((tensor.name, shape, tensor.dtype, scheme, method, tensor.bytes_before, tensor.bytes_after))
    headings = ["tensor", "shape", "type", "becomes", "method", "bytes before", "bytes after"]
    console.emit_table("tensors", headings, rows)
    _show_parts(plan.parts, plan.total)


def _show_result(result: QuantizeResult, as_json: bool) -> None:
    if as_json:
        console.emit_json(result.as_dict())
        return
    worst = [
        (
            layer.name,
            layer.scheme + (" at export" if layer.at_export else ""),
            layer.weight_error,
            layer.output_error,
            layer.activations,
            layer.input_error,
        )
        for layer in result.report.worst(WORST_LAYERS)
    ]
    console.emit_table(
        "worst layers", ["layer", "weights", "weight error", "output error", "activations", "input error"], worst
    )
    _show_parts(result.report.parts, result.report.total)
    if result.report.fidelity is not None and result.report.fidelity.sensitivity:
        rows = [
            (row.part, f"{100 * row.top1_agreement:.2f} %", f"{row.kl:.3g}", f"{100 * row.exact_difference:+.2f}")
            for row in result.report.fidelity.sensitivity
        ]
        console.emit_table("one part at a time", ["part", "same next token", "KL", "exact answers, points"], rows)
    console.emit_text(result.report.sentence)


def _show_parts(parts: tuple[PartReport, ...], total: PartReport) -> None:
    rows = [
        (row.part, row.weights, row.bytes_before, row.bytes_after, f"{row.bits_per_weight:.3f}")
        for row in (*parts, total)
    ]
    console.emit_table("parts", ["part", "weights", "bytes before", "bytes after", "bits per weight"], rows)
