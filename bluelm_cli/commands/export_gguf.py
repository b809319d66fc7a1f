"""`bluelm export --format gguf`: the model as files of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluelm_cli import console
from stages.artifacts.errors import BluelmError, UsageError, raise_all

if TYPE_CHECKING:
    from stages.export_gguf import GgufPlan, GgufResult

MEBIBYTE = 1 << 20
FORMATS = ("onnx", "gguf")


def wanted(format_: str, flags: Mapping[str, Any]) -> bool:
    """Whether the export is for llama.cpp.

    Raises:
        UsageError: an unknown format, or flags of graphs beside gguf; all of them together.
    """
    if format_ not in FORMATS:
        raise UsageError(
            f"--format {format_}: there is no such format.",
            "It decides what is written.",
            f"Choose one of {', '.join(FORMATS)}; onnxruntime-genai opens what onnx writes.",
        )
    problems: list[BluelmError] = [
        UsageError(
            f"--{name.replace('_', '-')} does not go with --format gguf.",
            "llama.cpp has graphs, a cache and a context of its own.",
            "Leave it out.",
        )
        for name, value in flags.items()
        if value is not None and format_ == "gguf"
    ]
    raise_all(problems)
    return format_ == "gguf"


def export(
    checkpoint: Path,
    out: Path | None,
    recipe: str | None,
    sets: Sequence[str],
    *,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Runs the stage and prints what it made."""
    from stages import export_gguf as stage
    from stages.artifacts.recipes import load_config

    config = load_config(stage.GgufConfig, recipe, sets, {})
    if dry_run:
        _show_plan(stage.plan(config, checkpoint), as_json)
        return
    if out is None:
        raise UsageError("--out is missing.", "The files need a folder.", "Add --out FOLDER, or look with --dry-run.")
    result = console.drive(stage.run(config, checkpoint, out, force=force))
    if as_json:
        console.emit_json(result.as_dict())
        return
    _show(result)


def _show_plan(plan: GgufPlan, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan.as_dict())
        return
    pictures = "mmproj.gguf" if plan.without_pictures is None else f"none: {plan.without_pictures}"
    rows = [["language model", plan.architecture], ["tokenizer", plan.tokenizer], ["pictures", pictures]]
    console.emit_table("For llama.cpp", ["part", "as"], rows)


def _show(result: GgufResult) -> None:
    console.emit_table("Tensors of model.gguf", ["type", "tensors"], [list(pair) for pair in result.tensors.items()])
    rows = [[name, round(size / MEBIBYTE, 2)] for name, size in result.files.items()]
    console.emit_table(f"{result.out}", ["file", "MiB"], rows)
