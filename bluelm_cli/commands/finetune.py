"""`bluelm finetune`: stage 2, everything (Table 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import (
    DataFormat,
    Device,
    DryRun,
    Dtype,
    EvalData,
    Force,
    Images,
    Json,
    Measure,
    Out,
    Seed,
    Set,
    Threads,
)
from bluelm_cli.training_report import require_out, show_plan, show_result


def finetune(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint to start from.")],
    data: Annotated[Path, typer.Option("--data", help="What to learn from: a corpus, or any data that is read.")],
    out: Out = None,
    tiles: Annotated[Path | None, typer.Option("--tiles", help="The corpus' pictures, tiled by bluelm tile.")] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", hidden=True, help="Refused: the tower learns."),
    ] = None,
    images: Images = None,
    data_format: DataFormat = None,
    eval_data: EvalData = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="A YAML recipe: a file, or one that comes with bluelm.", show_default="finetune.yaml"
        ),
    ] = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    dry_run: DryRun = False,
    measure: Measure = False,
    as_json: Json = False,
) -> None:
    """Train stage 2: everything, the tower's lower layers more slowly (Table 8).

    Interrupted, the same command goes on where it stopped.

    Example: bluelm finetune build/stage1 --data build/corpus --recipe tiny/finetune.yaml --out build/stage2
    """
    from stages import finetune as stage
    from stages.artifacts.recipes import load_config, shipped_recipe
    from stages.workshop.training.machine import Machine
    from stages.workshop.training.processes import is_main

    flags = {"seed": seed, "dtype": dtype}
    config = load_config(stage.FinetuneConfig, recipe or shipped_recipe("finetune.yaml"), sets or (), flags)
    inputs = stage.inputs(
        checkpoint,
        data,
        tiles=tiles,
        machine=Machine(device=device, threads=threads),
        images=images,
        data_format=data_format,
        heldout=eval_data,
        features=features,
    )
    if dry_run or measure:
        plan = stage.plan(config, inputs).as_dict()
        if measure:
            plan["measured"] = console.drive(stage.measure(config, inputs)).as_dict()
        if is_main():
            show_plan(plan, as_json)
        return
    result = console.drive(stage.run(config, inputs, require_out(out, "finetune"), force))
    if is_main():
        show_result(result.as_dict(), as_json)
