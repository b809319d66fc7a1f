"""`bluelm bench fig5`: flags -> stages.bench_fig5 -> times and a sentence, or JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import Ceilings, Keep, Kv, Layers, Model, Policies, Preset, Runs, VisionLayers, Warmup
from bluelm_cli.options import Force, Json, Out, Recipe, Seed, Set, Threads


def fig5(
    model: Model = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles of the picture, 9 by default (grid 2:4).")] = None,
    batch: Annotated[
        int | None, typer.Option("--tiles-per-batch", "--batch", help="Tiles per encode call, 4 by default.")
    ] = None,
    chunk: Annotated[
        int | None, typer.Option("--chunk", help="Tokens per prefill call; chat's own by default.")
    ] = None,
    generate: Annotated[int | None, typer.Option("--generate", help="Tokens to decode, 16 by default.")] = None,
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
    """Draw what runs when: patch embedding, ViT batches, language model (the paper's Fig. 5).

    Encodes with and without the overlap in turns, and says whether it pays here.

    Example: bluelm bench fig5 --out build/fig5

    Example: bluelm bench fig5 --preset bluelm-v-3b --layers 8 --vision-layers 6 --out build/fig5
    """
    from stages import bench_fig5 as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "tiles": tiles,
        "tiles_per_batch": batch,
        "chunk": chunk,
        "generate": generate,
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
    config = load_config(verb.Fig5Config, recipe, sets or (), flags)
    summary = console.drive(verb.run(config, model, out, force, keep)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary, out)
