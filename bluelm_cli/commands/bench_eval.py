"""`bluelm bench eval`: flags -> stages.bench_eval -> accuracies, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bench_flags import percent, show_plan
from bluelm_cli.options import Device, DryRun, Force, Json, Out, Recipe, Set, Threads


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
    over pictures and what guessing from the question alone would get.

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
        show_plan(verb.plan(config, model, data).as_dict(), as_json)
        return
    result = console.drive(verb.run(config, model, data, out, force))
    if as_json:
        console.emit_json(result.as_dict())
    else:
        _show_accuracy(result.as_dict())


def _show_accuracy(result: Mapping[str, Any]) -> None:
    scores = {**result["tasks"], "all": result["total"]}
    rows = [
        [
            task,
            score["questions"],
            score["correct"],
            percent(score["accuracy"]),
            "{:.1f} – {:.1f} %".format(*[100 * bound for bound in score["interval"]]),
            percent(score["baseline"]),
        ]
        for task, score in scores.items()
    ]
    columns = ["task", "questions", "right", "accuracy", "95 % interval", "question only"]
    seconds = "" if result["seconds"] is None else f", {result['seconds']:.1f} s"
    title = f"{result['model']['name']} ({result['model']['kind']}) on {result['data']['split']}{seconds}"
    console.emit_table(title, columns, rows)
