"""`bluelm bench`: speed on this machine, accuracy on held-out questions, and the table that closes a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console, speed_table
from bluelm_cli.default_group import DefaultGroup
from bluelm_cli.options import Device, DryRun, Force, Json, Out, Recipe, Seed, Set, Threads

bench = typer.Typer(cls=DefaultGroup, add_completion=False, pretty_exceptions_enable=False)


@bench.callback()
def group() -> None:
    """Measure a model: its speed on this machine, its accuracy, and both in one table.

    A first word that names no command is a model: `bluelm bench MODEL` is `bluelm bench run MODEL`, whose options
    `bluelm bench run --help` lists.

    Example: bluelm bench build/onnx --chunk 128 --chunk 512

    Example: bluelm bench eval build/onnx --data build/corpus --out build/eval
    """


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


@bench.command()
def run(
    model: Annotated[Path | None, typer.Argument(help="An exported model; the demo model when left out.")] = None,
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
    warmup: Annotated[int | None, typer.Option("--warmup", help="Runs before them that don't, 1 by default.")] = None,
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
    policy: Annotated[list[str] | None, typer.Option("--policy", help=f"{POLICY} (repeatable).")] = None,
    keep: Keep = None,
    ceilings: Annotated[
        bool | None,
        typer.Option("--ceilings/--no-ceilings", help="Measure in turns with it what this machine reaches at most."),
    ] = None,
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
        _show_plan(verb.plan(config, model, image).as_dict(), as_json)
        return
    summary = console.drive(verb.run(config, model, image, out, force, keep)).as_dict()
    if as_json:
        console.emit_json(summary)
    else:
        speed_table.show(summary)


@bench.command()
def ops(
    model: Annotated[Path | None, typer.Argument(help="An exported model; the demo model when left out.")] = None,
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


@bench.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="An exported model, a checkpoint, or a quantized one.")],
    data: Annotated[Path, typer.Option("--data", help="The corpus that holds the questions.")],
    split: Annotated[str | None, typer.Option("--split", help="Its split, heldout by default.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only questions of this task (repeatable).")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most so many questions, taken evenly from all.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Most tokens of an answer, 32 by default.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Questions a torch model answers at once, 32 by default.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    device: Device = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ask a model every held-out question and count the exact answers.

    Answers are compared without case, outer space and final punctuation. Beside the accuracy stand its 95 % interval
    (Wilson) and what guessing from the question alone would get.

    Example: bluelm bench eval build/onnx --data build/corpus --task colour --out build/eval
    """
    from stages import bench_eval as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "split": split,
        "task": task or None,
        "limit": limit,
        "max_tokens": max_tokens,
        "batch": batch,
        "threads": threads,
        "device": device,
    }
    config = load_config(verb.EvalConfig, recipe, sets or (), flags)
    if dry_run:
        _show_plan(verb.plan(config, model, data).as_dict(), as_json)
        return
    result = console.drive(verb.run(config, model, data, out, force))
    if as_json:
        console.emit_json(result.as_dict())
    else:
        _show_accuracy(result.as_dict())


@bench.command()
def table(
    folders: Annotated[list[Path], typer.Argument(help="What bench run and bench eval wrote.")],
    as_json: Json = False,
) -> None:
    """Put evaluations and speed runs of several models into one table.

    Example: bluelm bench table build/eval-float build/eval-int4 build/eval-onnx build/speed
    """
    from stages.evaluate.closing_table import closing_table

    made = closing_table(folders).as_dict()
    for warning in made["warnings"]:
        console.note(f"Warning: {warning}", warning=True)
    if as_json:
        console.emit_json(made)
        return
    columns = ["model", "name", "accuracy", *made["tasks"], "image tok", "prompt tok", "seconds", "bytes"]
    rows = [_closing_row(row, made["tasks"]) for row in made["rows"]]
    if any(row["prefill_tok_s"] is not None for row in made["rows"]):
        columns += ["prefill tok/s", "decode tok/s"]
        for row, values in zip(rows, made["rows"], strict=True):
            row += [values["prefill_tok_s"], values["decode_tok_s"]]
    asked = max((row["questions"] or 0 for row in made["rows"]), default=0)
    console.emit_table(f"{asked} questions, exact match; tokens per question, seconds for all", columns, rows)


def _closing_row(row: Mapping[str, Any], tasks: Sequence[str]) -> list[Any]:
    return [
        row["form"],
        None if row["model"] == row["form"] else row["model"],
        _percent(row["accuracy"]),
        *[_percent(row["tasks"].get(task)) for task in tasks],
        row["image_tokens"],
        row["prompt_tokens"],
        row["seconds"],
        row["bytes"],
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _show_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        console.emit_json(plan)
    else:
        console.emit_table("would run", ["what", "value"], [[name, str(value)] for name, value in plan.items()])


def _show_accuracy(result: Mapping[str, Any]) -> None:
    scores = {**result["tasks"], "all": result["total"]}
    rows = [
        [
            task,
            score["questions"],
            score["correct"],
            _percent(score["accuracy"]),
            "{:.1f} – {:.1f} %".format(*[100 * bound for bound in score["interval"]]),
            _percent(score["baseline"]),
        ]
        for task, score in scores.items()
    ]
    columns = ["task", "questions", "right", "accuracy", "95 % interval", "question only"]
    seconds = "" if result["seconds"] is None else f", {result['seconds']:.1f} s"
    title = f"{result['model']['name']} ({result['model']['kind']}) on {result['data']['split']}{seconds}"
    console.emit_table(title, columns, rows)
