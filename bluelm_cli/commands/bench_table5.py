"""`bluelm bench table5`: flags -> stages.bench_table5 -> times and a sentence, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.bench_flags import Ceilings, Keep, Kv, Layers, Model, Policies, Preset, Runs, VisionLayers, Warmup
from bluelm_cli.options import Force, Json, Out, Recipe, Seed, Set, Threads


def table5(
    model: Model = None,
    tiles: Annotated[int | None, typer.Option("--tiles", help="Tiles of the picture, 9 by default (grid 2:4).")] = None,
    batch: Annotated[
        int | None, typer.Option("--tiles-per-batch", "--batch", help="Tiles per encode call; chat's own by default.")
    ] = None,
    chunk: Annotated[
        int | None, typer.Option("--chunk", help="Tokens per prefill call; chat's own by default.")
    ] = None,
    generate: Annotated[int | None, typer.Option("--generate", help="Tokens to decode, 32 by default.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Tokens to prefill, 2048 by default.")
    ] = None,
    llama_python: Annotated[
        Path | None,
        typer.Option(
            "--llama-python", envvar="BLUELM_PEER_LLAMA_PYTHON", help="A python that has llama-cpp-python and gguf."
        ),
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
    """Time load, picture, prefill and decode of one chat, and its memory (the paper's Table 5), llama.cpp beside.

    llama.cpp runs in turns with ours, on random weights of the same shape, where its environment is named
    (recipes/peers/compare.sh WORK --prepare makes one).

    Example: bluelm bench table5 --out build/table5

    Example: bluelm bench table5 --preset bluelm-v-3b --llama-python WORK/environments/llama/bin/python
    """
    from stages import bench_table5 as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "tiles": tiles,
        "tiles_per_batch": batch,
        "chunk": chunk,
        "generate": generate,
        "prompt_tokens": prompt_tokens,
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
    config = load_config(verb.Table5Config, recipe, sets or (), flags)
    summary = console.drive(verb.run(config, model, out, force, keep, llama_python)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary, out)
