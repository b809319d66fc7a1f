"""`bluelm bench compare`: stages.bench_compare -> ratios with intervals, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import Json


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Two benches (folders, results.jsonl, llama-bench's -o jsonl), or one with a sweep."),
    ],
    as_json: Json = False,
) -> None:
    """Say how many times as fast the second bench is, or each setting of one; a verdict only where one is due.

    What ran in turns is paired turn by turn; the interval holds the true median with 95 %. Drift, noise and other work
    on the machine are told, and keep a verdict back where they could explain it.

    Example: bluelm bench compare build/before build/after

    Example: bluelm bench compare build/fig8
    """
    from stages.bench_compare import run

    made = run(paths).as_dict()
    for warning in made["warnings"]:
        console.note(f"Warning: {warning}", warning=True)
    if as_json:
        console.emit_json(made)
        return
    rows = [
        [
            row["test"],
            row["second"],
            row["first"],
            f"{row['ratio']['median']:.3f}",
            f"{row['ratio']['low']:.3f} – {row['ratio']['high']:.3f}",
            "in turns" if row["paired"] else "all with all",
            row["verdict"] + (f": {row['why']}" if row["why"] else ""),
        ]
        for row in made["rows"]
    ]
    columns = ["test", "this", "against", "times as fast", "95 % interval", "compared", "verdict"]
    console.emit_table("how many times as fast", columns, rows)
