"""`bluelm bench fig8`: flags -> stages.bench_fig8 -> times and a sentence, or JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import Ceilings, Keep, Kv, Layers, Model, Policies, Preset, Runs, VisionLayers, Warmup
from bluelm_cli.options import Force, Json, Out, Recipe, Seed, Set, Threads


def fig8(
    model: Model = None,
    chunk: Annotated[
        list[int] | None,
        typer.Option("--chunk", help="Tokens per prefill call; 32, 128, 512, 2048 by default (repeatable)."),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Tokens to prefill, 2048 by default.")
    ] = None,
    generate: Annotated[int | None, typer.Option("--generate", help="Tokens to decode, 32 by default.")] = None,
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
    """Time prefill in chunks of 32, 128, 512 and 2048 tokens, and decoding (the paper's Fig. 8).

    Says whether t128/t1 is the fastest here, as it is on the paper's phone.

    Example: bluelm bench fig8 --out build/fig8

    Example: bluelm bench fig8 --preset bluelm-v-3b --layers 8 --vision-layers 1 --out build/fig8
    """
    from stages import bench_fig8 as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "chunk": chunk or None,
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
        "threads": threads,
    }
    config = load_config(verb.Fig8Config, recipe, sets or (), flags)
    summary = console.drive(verb.run(config, model, out, force, keep)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary, out)
