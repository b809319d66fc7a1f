"""`bluelm bench accuracy`: flags -> stages.bench_accuracy -> scores with intervals, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bench_flags import percent, show_plan
from bluelm_cli.options import Device, DryRun, Force, Json, Out, Recipe, Seed, Set, Threads


def accuracy(
    model: Annotated[Path, typer.Argument(help="An exported model, a checkpoint, or a quantized one.")],
    data: Annotated[Path, typer.Option("--data", help="The suite's file; a corpus or a JSON file in LLaVA's form.")],
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="vqav2, textvqa, docvqa, chartqa, ocrbench, mmbench, mmstar, mmmu, mathvista, hallusionbench, ai2d, "
            "mm-vet, mtvqa, or llava (the default).",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Of llava data: exact (default), vqa, anls, relaxed, contains, …"),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Where pictures lie, if not beside the data.")] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="VQAv2's answers, which are a file of their own.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of a corpus, heldout by default.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this category (repeatable).")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many questions, taken evenly.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Most tokens of a reply, 64 by default.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Questions a torch model answers at once, 32 by default.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="What bench accuracy wrote of another model: compare with it.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Score a model on a benchmark by that benchmark's own metric, from files on this disk.

    Replies are kept in --out as they come; a killed run goes on where it was. Intervals are 95 %, drawn over pictures.

    Example: bluelm bench accuracy build/onnx --suite docvqa --data val_v1.0.json --images pages --out build/docvqa

    Example: bluelm bench accuracy build/int4 --data build/corpus --out build/a4 --against build/a16
    """
    from stages import bench_accuracy as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "suite": suite,
        "metric": metric,
        "split": split,
        "task": task or None,
        "limit": limit,
        "max_tokens": max_tokens,
        "batch": batch,
        "threads": threads,
        "device": device,
        "seed": seed,
    }
    config = load_config(verb.AccuracyConfig, recipe, sets or (), flags)
    sources = verb.Sources(data, images, annotations)
    if dry_run:
        show_plan(verb.plan(config, model, sources).as_dict(), as_json)
        return
    result = console.drive(verb.run(config, model, sources, out, against, force)).as_dict()
    if as_json:
        console.emit_json(result)
    else:
        _show(result)


def _show(result: Mapping[str, Any]) -> None:
    rows = [_row(name, score) for name, score in {**result["tasks"], "all": result["total"]}.items()]
    if len(result["tasks"]) > 1 and result["mean_of_tasks"] is not None:
        rows.append(["mean of categories", len(result["tasks"]), percent(result["mean_of_tasks"]), None])
    rows += [
        [f"{name}, all right", one["bundles"], percent(one["right"] / one["bundles"]), None]
        for name, one in result["bundles"].items()
    ]
    title = f"{result['model']['name']} ({result['model']['kind']}) on {result['suite']}"
    console.emit_table(title, ["category", "questions", "score", "95 % interval"], rows)
    for name, what in result["metrics"].items():
        console.note(f"{name}: {what}")
    beside = result["difference"]
    if beside is not None:
        low, high = (100 * bound for bound in beside["interval"])
        console.emit_text(
            f"{beside['verdict']}: {100 * beside['mean']:+.1f} points [{low:+.1f}, {high:+.1f}] on "
            f"{beside['questions']} questions about {beside['pictures']} pictures (p = {beside['p_value']:.2g}; "
            f"{beside['better']} better, {beside['worse']} worse)"
        )


def _row(name: str, score: Mapping[str, Any]) -> list[Any]:
    bounds = score["interval"]
    interval = None if bounds is None else "{:.1f} – {:.1f} %".format(*[100 * bound for bound in bounds])
    return [name, score["questions"], percent(score["score"]), interval]
