"""`bluelm bench agreement`: flags -> stages.bench_agreement -> how far two models part, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bench_flags import percent, show_plan
from bluelm_cli.options import Device, DryRun, Dtype, Force, Json, Out, Recipe, Set, Threads

MODEL = "float checkpoint, quantized folder or exported model"


def agreement(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help=f"What the other is held against: a {MODEL}.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help=f"The other: a {MODEL}.")],
    data: Annotated[Path, typer.Option("--data", help="The corpus that holds the questions.")],
    split: Annotated[str | None, typer.Option("--split", help="Its split, heldout by default.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only questions of this task (repeatable).")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="At most so many questions, taken evenly from all; 2000 by default.")
    ] = None,
    everywhere: Annotated[
        bool | None,
        typer.Option("--everywhere/--answers", help="Compare all text of the prompts too, not answers alone."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Questions a torch model reads at once, 16 by default.")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare two models token by token: same next token, KL divergence, perplexity, exact answers in pairs.

    Both read the same held-out questions with the right answers in place. A quantized folder computes as its export
    does. Intervals are 95 % by bootstrap over pictures.

    Example: bluelm bench agreement build/stage2 build/int4 --data build/corpus

    Example: bluelm bench agreement build/int4 build/onnx --data build/corpus --limit 200
    """
    from stages import bench_agreement as verb
    from stages.artifacts.recipes import load_config

    flags = {
        "split": split,
        "task": task or None,
        "limit": limit,
        "everywhere": everywhere,
        "batch": batch,
        "threads": threads,
        "device": device,
        "dtype": dtype,
    }
    config = load_config(verb.AgreementConfig, recipe, sets or (), flags)
    if dry_run:
        show_plan(verb.plan(config, first, second, data).as_dict(), as_json)
        return
    result = console.drive(verb.run(config, first, second, data, out, force)).as_dict()
    if as_json:
        console.emit_json(result)
    else:
        _show(result)


def _show(result: Mapping[str, Any]) -> None:
    title = "{} ({}) beside {} ({})".format(
        *[result[side][key] for side in ("first", "second") for key in ("name", "kind")]
    )
    rows = []
    for scope in ("answers", "text"):
        found = result[scope]
        if found is None:
            continue
        name = "assistant's tokens" if scope == "answers" else "all text"
        perplexity = found["perplexity"]
        rows += [
            [f"same next token, {name}", found["tokens"], *_shares(found["top1_agreement"])],
            [f"KL divergence, {name}", found["tokens"], *_numbers(found["kl"])],
            [f"perplexity, {name}", found["tokens"], f"{perplexity['first']:.4f} → {perplexity['second']:.4f}", None],
        ]
    exact = result["exact_match"]
    rows += [
        ["exact answers", exact["questions"], f"{percent(exact['first'])} → {percent(exact['second'])}", None],
        ["exact answers, paired", exact["questions"], *_shares(exact["difference"], signed=True)],
        ["right in the first alone / the second alone", exact["questions"], f"{exact['lost']} / {exact['won']}", None],
    ]
    console.emit_table(title, ["figure", "counted", "value", "95 % interval"], rows)


def _shares(figure: Mapping[str, Any], signed: bool = False) -> list[str]:
    sign = "+" if signed else ""
    low, high = figure["interval"]
    return [f"{100 * figure['value']:{sign}.2f} %", f"{100 * low:{sign}.2f} – {100 * high:{sign}.2f} %"]


def _numbers(figure: Mapping[str, Any]) -> list[str]:
    low, high = figure["interval"]
    return [f"{figure['value']:.3g}", f"{low:.3g} – {high:.3g}"]
