"""Flags that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option("--out", "-o", help="The artifact folder to write.")]
Recipe = Annotated[str | None, typer.Option("--recipe", help="A YAML recipe: a file, or one that comes with bluelm.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe (repeatable).")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: all cores).")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
Images = Annotated[Path | None, typer.Option("--images", help="Where pictures lie, if not beside the data.")]
DataFormat = Annotated[
    str | None,
    typer.Option("--format", help="corpus, llava, messages, datasets, parquet or webdataset (default: seen)."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and run nothing.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="As --dry-run, and run three steps to say how long all of them would take.")
]
EvalData = Annotated[
    Path | None, typer.Option("--eval-data", help="Data to evaluate on while training; nothing is learned from it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
