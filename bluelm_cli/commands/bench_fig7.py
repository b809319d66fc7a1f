"""`bluelm bench fig7`: flags -> stages.bench_fig7 -> times and a sentence, or JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import Ceilings, Keep, Kv, Layers, Model, Policies, Preset, Runs, VisionLayers, Warmup
from bluelm_cli.options import Force, Json, Out, Recipe, Seed, Set, Threads


def fig7(
    model: Model = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles of the picture, 9 by default (grid 2:4).")] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--tiles-per-batch", "--batch", help="Tiles per encode call; 1, 2, 4, 6 by default (repeatable)."),
    ] = None,
    runs: Runs = None,
    warmup: Warmup = None,
    preset: Preset = None,
    layers: Layers = None,
    vision_layers: VisionLayers = None,
    kv: Kv = None,
    policy: Policies = None,
    keep: Keep = None,
    ceilings: Ceilings = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Time the vision tower with 1, 2, 4 and 6 tiles per batch (the paper's Fig. 7).

    Says whether 4 are the fastest here, as they are on the paper's phone.

    Example: bluelm bench fig7 --out build/fig7

    Example: bluelm bench fig7 --preset bluelm-v-3b --layers 1 --vision-layers 6 --out build/fig7
    """
    from stages import bench_fig7 as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "tiles": tiles,
        "tiles_per_batch": batch or None,
        "runs": runs,
        "warmup": warmup,
        "preset": preset,
        "layers": layers,
        "vision_layers": vision_layers,
        "kv": kv,
        "policy": policy or None,
        "ceilings": ceilings,
        "seed": seed,
        "threads": threads,
    }
    config = load_config(verb.Fig7Config, recipe, sets or (), flags)
    summary = console.drive(verb.run(config, model, out, force, keep)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary, out)
