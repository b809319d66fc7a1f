"""`bluelm bench tune`: flags -> stages.bench_tune -> a profile, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import Ceilings, Keep, Kv, Layers, Model, Policies, Preset, Runs, VisionLayers, Warmup
from bluelm_cli.options import Force, Json, Out, Recipe, Seed, Set


def tune(
    model: Model = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--tiles-per-batch", "--batch", help="Tiles per encode call; 1, 2, 4, 6 by default (repeatable)."),
    ] = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles of the picture, 9 by default (grid 2:4).")] = None,
    try_threads: Annotated[
        list[int] | None,
        typer.Option("--try-threads", help="CPU threads; all cores, half and one by default (repeatable)."),
    ] = None,
    variant: Annotated[
        list[Path] | None, typer.Option("--variant", help="Another export of the same checkpoint (repeatable).")
    ] = None,
    chunk: Annotated[
        list[int] | None,
        typer.Option("--chunk", help="Tokens per prefill call; 64, 128, 256, 512 by default (repeatable)."),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Tokens to prefill, 2048 by default.")
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
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find which threads, tiles per batch and chunk suit this machine; chat and encode use them from then on.

    The profile goes into the cache ($BLUELM_CACHE), for this model on this machine; with --out into that folder, for
    --profile. What is not faster beyond doubt stays as it was. Activations are part of an export: give other exports
    of the same checkpoint as --variant (or several --policy with --preset) to see which are fastest.

    Example: bluelm bench tune build/onnx

    Example: bluelm bench tune build/onnx --variant build/onnx-mix --out build/tune
    """
    from stages import bench_tune as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "chunk": chunk or None,
        "tiles_per_batch": batch or None,
        "try_threads": try_threads or None,
        "tiles": tiles,
        "prompt_tokens": prompt_tokens,
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
    }
    config = load_config(verb.TuneConfig, recipe, sets or (), flags)
    tuned = console.drive(verb.run(config, model, variant or (), out, force, keep)).as_dict()
    if as_json:
        console.emit_json(tuned)
    else:
        speed_table.show(tuned, out)
        if tuned["place"] is not None:
            console.emit_text(f"{tuned['place']}: {'chat and encode use it' if out is None else 'for --profile'}")
