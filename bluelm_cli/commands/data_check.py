"""`bluelm data check`: flags -> stages.data_check -> a table of what is wrong, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import DataFormat, DryRun, Force, Images, Json, Out, Recipe, Set, Threads
from stages.artifacts.errors import DataError, UsageError

if TYPE_CHECKING:
    from stages.data_check import CheckResult


def check(
    data: Annotated[
        Path,
        typer.Argument(
            help="A corpus, LLaVA JSON, messages in JSON lines, parquet, a folder of datasets, or WebDataset tars."
        ),
    ],
    images: Images = None,
    out: Out = None,
    data_format: DataFormat = None,
    splits: Annotated[list[str] | None, typer.Option("--split", help="A split to check (repeatable).")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Count tokens for this checkpoint.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Count tokens for this shape.")] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", help="Most tokens of a row.", show_default="4096")
    ] = None,
    copy_pictures: Annotated[
        bool | None, typer.Option("--copy-pictures", help="Copy the pictures into the corpus.", show_default="no")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 2 if a row was left out.")] = False,
    recipe: Recipe = None,
    sets: Set = None,
    threads: Threads = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Look at every row of a set: report what is wrong, and write a corpus of the rows that can be used.

    Every row that is left out is listed with its reasons in dropped.jsonl. Interrupted, the same command goes on.

    Example: bluelm data check llava_v1_5_mix665k.json --images data --preset bluelm-v-3b --out build/clean

    Example: bluelm data check shards/ --format webdataset --copy-pictures --strict --out build/clean
    """
    from stages import data_check as stage
    from stages.artifacts.recipes import load_config

    flags = {
        "format": data_format,
        "splits": splits or None,
        "preset": preset,
        "sequence_length": sequence_length,
        "copy_pictures": copy_pictures or None,
    }
    config = load_config(stage.CheckConfig, recipe=recipe, sets=sets or [], flags=flags)
    inputs = stage.CheckInputs(data, images, model)
    if dry_run:
        result = stage.plan(config, inputs, out)
    elif out is None:
        raise UsageError(
            "--out is missing.", "data check writes a corpus and a report.", "Add --out FOLDER, or --dry-run."
        )
    else:
        result = console.drive(stage.run(config, inputs, out, force=force, threads=threads))
    if as_json:
        console.emit_json({**result.as_dict(), "dry_run": dry_run})
    elif dry_run:
        _show_plan(result)
    else:
        _show(result)
    if strict and result.dropped:
        raise DataError(
            f"{result.dropped:,} of {result.report['rows']:,} rows of {data} cannot be used.",
            "--strict asks for a set without such rows.",
            f"Their reasons are in {out}/dropped.jsonl; the other rows are in {out}.",
        )


def _show_plan(result: CheckResult) -> None:
    rows = [[name, split["rows"], split["files"]] for name, split in result.report["splits"].items()]
    console.emit_table(f"{result.format} that would be checked", ["split", "rows", "files"], rows)


def _show(result: CheckResult) -> None:
    report = result.report
    rows = [
        [name, split["rows"], split["kept"], split["rows"] - split["kept"], split["pictures"], split["longest"] or None]
        for name, split in report["splits"].items()
    ]
    columns = ["split", "rows", "kept", "left out", "pictures", "longest, tokens"]
    console.emit_table(f"corpus in {result.out}", columns, rows)
    problems = [
        [kind["what"], kind["rows"], "left out" if kind["dropped"] else "kept", _first(kind["first"])]
        for kind in report["problems"].values()
    ]
    if problems:
        console.emit_table("what was found", ["problem", "rows", "", "the first"], problems)
    else:
        console.emit_text("nothing is wrong")


def _first(named: list[dict[str, str]]) -> str:
    others = ", ".join(item["row"] for item in named[1:3])
    return f"{named[0]['row']}: {named[0]['problem']}" + (f"; also {others}" if others else "")
