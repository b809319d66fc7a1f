"""`bluelm bench paper`: stages.bench_paper -> the paper's tables, ours beside, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluelm_cli import console
from bluelm_cli.options import Json
from stages.artifacts.errors import UsageError


def paper(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Benches (folders or results.jsonl), and what tile --stats --json printed."),
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Print these of the paper's tables: table2, fig7 … (repeatable)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put what was measured beside the paper's figures; without measurements, list its tables.

    Example: bluelm bench paper build/table5 build/fig5 stats.json

    Example: bluelm bench paper --table table2 --table table5
    """
    from stages.bench_paper import run

    made = run(paths or ())
    if unknown := [name for name in table or () if name not in made.tables]:
        raise UsageError(
            f"The paper's data has no table {unknown[0]!r}.",
            "There is nothing to print.",
            f"It has: {', '.join(made.tables)}",
        )
    found = made.as_dict()
    if as_json:
        console.emit_json(found)
        return
    for one in (made.tables[name] for name in table or ()):
        rows = [list(row.values()) for row in one.rows]
        console.emit_table(f"Sec. {one.section}: {one.title}", list(one.columns), rows)
    if table and not paths:
        return
    if found["rows"]:
        keys = ("quantity", "section", "ours", "paper", "unit", "differs")
        rows = [[row[key] or None for key in keys] for row in found["rows"]]
        columns = ["quantity", "section", "here", "the paper", "unit", "not the same"]
        console.emit_table("ours beside the paper's", columns, rows)
    rows = [[case["picture"], case["rule"], case["paper"], case["ours"], case["same"]] for case in found["cases"]]
    console.emit_table(
        "published tiling cases (Figs. 3 and 9), grids", ["picture", "rule", "the paper", "here", "same"], rows
    )
    if not paths:
        console.emit_text(f"The paper's tables (--table NAME): {', '.join(made.tables)}")
