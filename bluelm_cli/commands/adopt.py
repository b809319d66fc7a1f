"""`bluelm adopt`: a public checkpoint becomes one of ours."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set
from bluelm_cli.tiling_flags import parse_grid
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.adopt import AdoptPlan, AdoptResult


class Template(StrEnum):
    """Chat templates we carry."""

    chatml = "chatml"
    vicuna = "vicuna"
    llama3 = "llama3"


def adopt(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A downloaded VILA-1.5 or LLaVA-OneVision folder, or a checkpoint with its LoRA adapter apart.",
        ),
    ],
    out: Out = None,
    max_grid: Annotated[
        str | None, typer.Option("--max-grid", help="Most columns and rows of tiles, 4x4 by default.")
    ] = None,
    chat_template: Annotated[
        Template | None, typer.Option("--chat-template", help="How a question looks to the model (default: its own).")
    ] = None,
    recipe: Recipe = None,
    sets: Set = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take over a public VILA-1.5 or LLaVA-OneVision model, ready to quantize and export.

    Nothing is downloaded: FOLDER holds the published files (safetensors, not pickles). A checkpoint of ours with its
    LoRA adapter apart (finetune --set lora.merge=false) gets it merged.

    Example: bluelm adopt VILA1.5-3b --out build/vila
    """
    from stages import adopt as stage
    from stages.artifacts.recipes import load_config

    grid = None if max_grid is None else parse_grid(max_grid)
    if max_grid is not None and grid is None:
        raise UsageError(
            f"--max-grid {max_grid!r} is not a grid.",
            "It is the most columns and rows, each from 1 to 64.",
            "Write it like --max-grid 4x4.",
        )
    flags = {
        "max_cols": grid and grid.cols,
        "max_rows": grid and grid.rows,
        "chat_template": chat_template and chat_template.value,
    }
    config = load_config(stage.AdoptConfig, recipe, sets or (), flags)
    if dry_run:
        _show_plan(stage.plan(config, source), as_json)
        return
    if out is None:
        raise UsageError("--out is missing.", "The checkpoint needs a folder.", "Add --out FOLDER, or --dry-run.")
    _show_result(console.drive(stage.run(config, source, out, force=force)), as_json)


def _show_plan(plan: AdoptPlan, as_json: bool) -> None:
    if as_json:
        console.emit_json(plan.as_dict())
        return
    rows = [
        ("layout", plan.layout),
        ("language model", plan.text_model),
        ("tile", f"{plan.tile_size}×{plan.tile_size}"),
        ("image tokens per tile", plan.tokens_per_tile),
        ("weights", plan.weights),
        ("bytes", plan.bytes),
        *(("left out", note) for note in plan.notes),
    ]
    console.emit_table("would adopt", ["what", "value"], rows)


def _show_result(result: AdoptResult, as_json: bool) -> None:
    if as_json:
        console.emit_json(result.as_dict())
        return
    rows = [
        ("layout", result.layout),
        ("parameters", result.parameters),
        ("image tokens per tile", result.tokens_per_tile),
        ("chat template", result.chat_template),
    ]
    console.emit_table(f"{result.out}", ["what", "value"], rows)
