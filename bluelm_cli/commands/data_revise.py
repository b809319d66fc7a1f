"""`bluelm data revise`: flags -> stages.data_revise -> a table, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.options import DryRun, Force, Json, Out, Recipe, Set
from stages.artifacts.errors import UsageError

if TYPE_CHECKING:
    from stages.data_revise import ReviseResult


def revise(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A corpus, conversation data, a picture, or a folder of pictures.")
    ],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Whom to ask, as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The endpoint's name of the model.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="create-caption, create-qa or revise (default).")] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", metavar="FILE", help="A jinja2 template, or caption, qa or revise."),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option("--key-variable", metavar="NAME", help="Environment variable with the API key (OPENAI_API_KEY)."),
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Only the first so many rows.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Requests on their way at a time.")] = None,
    answers: Annotated[int | None, typer.Option("--most-answers", min=1, help="Stop after so many answers.")] = None,
    tokens: Annotated[int | None, typer.Option("--most-tokens", min=1, help="Stop before more tokens.")] = None,
    money: Annotated[
        float | None, typer.Option("--most-money", help="Stop before it costs more; needs --price-in and --price-out.")
    ] = None,
    price_in: Annotated[float | None, typer.Option("--price-in", help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", help="Price of a million answer tokens.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="The input's format (default: seen in it).")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where pictures lie, if not beside the data.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which split of a corpus.")] = "train",
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FILE", help="Keeps all answers (default: OUT.answers.jsonl).")
    ] = None,
    out: Out = None,
    recipe: Recipe = None,
    sets: Set = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have captions and question-answer pairs written or revised by a model behind an OpenAI-compatible endpoint.

    What is sent, to the address given with --endpoint and to no other: for
    each row the prompt, with as much of the row's texts as its template names;
    the row's pictures, scaled down and encoded again as JPEG, without file
    names and EXIF; the model's name and the sampling parameters. Nothing else,
    and nothing without --endpoint. The API key is read from an environment
    variable and written nowhere.

    Every answer is kept in a file as it arrives: a run that was stopped,
    killed or out of budget goes on with the same command and pays for no
    answer twice. Rows without a usable answer are listed in failed.jsonl.

    Example: bluelm data revise photos/ --task create-caption --model NAME
    --endpoint http://localhost:8000/v1 --out build/captions

    Example: bluelm data revise build/corpus --model NAME --out build/revised
    --endpoint https://api.example.com/v1 --price-in 0.5 --price-out 2
    --most-money 10 --dry-run
    """
    from stages import data_revise as stage
    from stages.artifacts.recipes import load_config

    flags = {
        "endpoint": endpoint,
        "model": model,
        "task": task,
        "prompt": prompt,
        "key_variable": key_variable,
        "rows": rows,
        "concurrency": concurrency,
        "budget": _budget(answers, tokens, money, price_in, price_out),
    }
    config = load_config(stage.ReviseConfig, recipe=recipe, sets=sets or [], flags=flags)
    taken: dict[str, Any] = {"format": format, "images": images, "split": split, "cache": cache}
    if dry_run:
        result = stage.plan(config, source, out, **taken)
    elif out is None:
        raise UsageError(
            "--out is missing.", "data revise writes a corpus.", "Add --out FOLDER, or --dry-run to see what it costs."
        )
    else:
        result = console.drive(stage.run(config, source, out, force=force, **taken))
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    elif dry_run:
        _show_plan(result)
    else:
        _show(result)


def _budget(
    answers: int | None, tokens: int | None, money: float | None, price_in: float | None, price_out: float | None
) -> dict[str, Any] | None:
    """What flags say of the budget; None where they say nothing."""
    prices = {name: value for name, value in (("input", price_in), ("output", price_out)) if value is not None}
    given: dict[str, Any] = {"answers": answers, "tokens": tokens, "money": money, "prices": prices or None}
    return {name: value for name, value in given.items() if value is not None} or None


def _show_plan(result: ReviseResult) -> None:
    report = result.report
    lines = [
        ["rows", report["rows"]],
        ["rows that cannot be asked", report["unusable"]],
        ["answered already", report["cached"]],
        ["requests", report["requests"]],
        ["tokens of questions, about", report["prompt_tokens"]],
        ["tokens of answers, at most", report["most_completion_tokens"]],
        ["money, at most", report["most_money"]],
    ]
    where = result.config.endpoint or "an endpoint"
    title = f"what would be asked of {where} ({result.config.model}), from the first {report['looked_at']:,} rows"
    console.emit_table(title, ["", "estimate"], lines)


def _show(result: ReviseResult) -> None:
    report = result.report
    cost = report["cost"]
    lines = [
        ["rows", report["rows"]],
        ["failed", report["failed"]],
        ["not asked", report["unasked"]],
        ["answers", cost["answers"]],
        ["tokens of questions", cost["prompt_tokens"]],
        ["tokens of answers", cost["completion_tokens"]],
        ["money", cost["money"]],
    ]
    console.emit_table(f"corpus in {result.out}", ["", "count"], lines)
    if report["reasons"]:
        console.emit_table("why rows failed", ["reason", "rows"], [[*item] for item in report["reasons"].items()])
