"""`bluelm bench run`: flags -> stages.bench -> speeds, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import (
    Ceilings,
    Keep,
    Kv,
    Layers,
    Model,
    Policies,
    Preset,
    VisionLayers,
    Warmup,
    show_plan,
)
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Seed, Set, Threads


def run(
    model: Model = None,
    chunk: Annotated[
        list[int] | None, typer.Option("--chunk", help="Tokens per prefill call; chat's own by default (repeatable).")
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--tiles-per-batch", "--batch", help="Tiles per encode call, 4 by default (repeatable)."),
    ] = None,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option("--prompt-tokens", help="Tokens to prefill, 2048 by default (repeatable).")
    ] = None,
    generate: Annotated[
        int | None, typer.Option("--generate", help="Tokens to decode, 64 by default; 0 leaves decoding out.")
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", help="Runs that count, 5 by default.")] = None,
    warmup: Warmup = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="The picture to encode; by default noise like a phone's screen.")
    ] = None,
    tiles: Annotated[
        list[int] | None, typer.Option("--tiles", help="Encode noise of so many tiles instead (repeatable).")
    ] = None,
    preset: Preset = None,
    layers: Layers = None,
    vision_layers: VisionLayers = None,
    kv: Kv = None,
    policy: Policies = None,
    keep: Keep = None,
    ceilings: Ceilings = None,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache", help="Load large weights prepacked from disk; by default not those of --preset."
        ),
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Time load, encode, prefill and decode; report medians, shares of the machine's ceilings, and peak memory.

    Whatever is compared (sizes, policies) is run in turns. Without MODEL, random weights of --preset, or the demo
    model.

    Example: bluelm bench run build/onnx --chunk 32 --chunk 128 --chunk 512 --chunk 2048

    Example: bluelm bench run --preset bluelm-v-3b --layers 4 --policy mix --policy paper --runs 3

    Example: bluelm bench run --preset bluelm-v-3b --layers 4 --prompt-tokens 256 --prompt-tokens 4096 --generate 0
    """
    from stages import bench as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "chunk": chunk or None,
        "tiles_per_batch": batch or None,
        "tiles": tiles or None,
        "prompt_tokens": prompt_tokens or None,
        "generate": generate,
        "runs": runs,
        "warmup": warmup,
        "threads": threads,
        "seed": seed,
        "preset": preset,
        "layers": layers,
        "vision_layers": vision_layers,
        "kv": kv,
        "policy": policy or None,
        "ceilings": ceilings,
        "cache": cache,
    }
    config = load_config(verb.BenchConfig, recipe, sets or (), flags)
    if dry_run:
        show_plan(verb.plan(config, model, image).as_dict(), as_json)
        return
    summary = console.drive(verb.run(config, model, image, out, force, keep)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary, out)
