"""`bluelm bench ops`: flags -> stages.bench_ops -> shares of the time, or JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import POLICY, Keep, Kv, Layers, Model, Preset, VisionLayers
from bluelm_cli.options import Json, Recipe, Seed, Set, Threads


def ops(
    model: Model = None,
    chunk: Annotated[
        int | None, typer.Option("--chunk", help="Tokens per prefill call; chat's own by default.")
    ] = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles to encode, 4 by default.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Tokens to prefill, 512 by default.")
    ] = None,
    generate: Annotated[int | None, typer.Option("--generate", help="Tokens to decode, 16 by default.")] = None,
    preset: Preset = None,
    layers: Layers = None,
    vision_layers: VisionLayers = None,
    kv: Kv = None,
    policy: Annotated[str | None, typer.Option("--policy", help=f"{POLICY}.")] = None,
    keep: Keep = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show where the time goes: each operator of encode, prefill and decode, and what it is for.

    Profiling itself takes time: read the shares, not the seconds.

    Example: bluelm bench ops --preset bluelm-v-3b --layers 4 --vision-layers 4 --policy paper
    """
    from stages import bench_ops as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "chunk": chunk,
        "tiles": tiles,
        "prompt_tokens": prompt_tokens,
        "generate": generate,
        "threads": threads,
        "seed": seed,
        "preset": preset,
        "layers": layers,
        "vision_layers": vision_layers,
        "kv": kv,
        "policy": None if policy is None else [policy],
    }
    config = load_config(verb.OpsConfig, recipe, sets or (), flags)
    table = console.drive(verb.run(config, model, keep)).as_dict()
    if as_json:
        console.emit_json(table)
    else:
        speed_table.show_operators(table)
