"""Flags and figures that several bench commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console

Preset = Annotated[
    str | None, typer.Option("--preset", help="Random weights of this shape instead of a model: bluelm-v-3b, tiny.")
]
Layers = Annotated[int | None, typer.Option("--layers", help="With --preset: so many layers instead of all.")]
VisionLayers = Annotated[
    int | None, typer.Option("--vision-layers", help="With --preset: vision tower layers, if not as many.")
]
Kv = Annotated[str | None, typer.Option("--kv", help="With --preset: KV cache in int8 (default) or float32.")]
Keep = Annotated[
    Path | None, typer.Option("--keep", help="With --preset: keep the random weights in this folder for the next time.")
]
POLICY = "With --preset: what quantized products round their inputs to: paper, mix (default), int8, float"

Policies = Annotated[list[str] | None, typer.Option("--policy", help=f"{POLICY} (repeatable).")]
Model = Annotated[Path | None, typer.Argument(help="An exported model; the demo model when left out.")]
Runs = Annotated[int | None, typer.Option("--runs", help="Runs that count, 7 by default.")]
Warmup = Annotated[int | None, typer.Option("--warmup", help="Runs before them that don't, 1 by default.")]
Ceilings = Annotated[
    bool | None,
    typer.Option("--ceilings/--no-ceilings", help="Measure in turns with it what this machine reaches at most."),
]


def show_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    """Prints what a command would do."""
    if as_json:
        console.emit_json(plan)
    else:
        console.emit_table("would run", ["what", "value"], [[name, str(value)] for name, value in plan.items()])


def percent(share: float | None) -> str | None:
    """A share as a cell; None stays none."""
    return None if share is None else f"{100 * share:.1f} %"
