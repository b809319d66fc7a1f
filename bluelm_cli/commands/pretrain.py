"""`bluelm pretrain`: stage 1, the connector (Table 7)."""

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


def pretrain(
    data: Annotated[Path, typer.Option("--data", help="What to learn from: a corpus, or any data that is read.")],
    out: Out = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Start from random weights of this shape.")] = None,
    checkpoint: Annotated[Path | None, typer.Option("--from", help="Start from this checkpoint.")] = None,
    vision: Annotated[
        str | None,
        typer.Option("--vision", help="Start from this SigLIP: a folder, or ORG/NAME[@REVISION] on the hub."),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", help="And from this language model: a folder or ORG/NAME[@REVISION]."),
    ] = None,
    tiles: Annotated[Path | None, typer.Option("--tiles", help="The corpus' pictures, tiled by bluelm tile.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features", help="The pictures' features from bluelm encode --before-connector, read in their place."
        ),
    ] = None,
    images: Images = None,
    data_format: DataFormat = None,
    eval_data: EvalData = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="A YAML recipe: a file, or one that comes with bluelm.", show_default="pretrain.yaml"
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
    """Train stage 1: the connector between a frozen tower and a frozen language model (Table 7).

    Interrupted, the same command goes on where it stopped.

    Example: bluelm pretrain --data build/corpus --preset tiny --recipe tiny/pretrain.yaml --out build/stage1
    """
    from stages import pretrain as stage
    from stages.artifacts.recipes import load_config, shipped_recipe
    from stages.workshop.training.machine import Machine
    from stages.workshop.training.processes import is_main

    flags = {"preset": preset, "seed": seed, "dtype": dtype}
    config = load_config(stage.PretrainConfig, recipe or shipped_recipe("pretrain.yaml"), sets or (), flags)
    inputs = stage.inputs(
        config,
        data,
        checkpoint=checkpoint,
        vision=vision,
        llm=llm,
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
    result = console.drive(stage.run(config, inputs, require_out(out, "pretrain"), force))
    if is_main():
        show_result(result.as_dict(), as_json)
