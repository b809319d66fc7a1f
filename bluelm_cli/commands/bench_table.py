"""`bluelm bench table`: evaluations and speed runs in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bluelm_cli import console
from bluelm_cli.bench_flags import percent
from bluelm_cli.options import Json


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
        percent(row["accuracy"]),
        *[percent(row["tasks"].get(task)) for task in tasks],
        row["image_tokens"],
        row["prompt_tokens"],
        row["seconds"],
        row["bytes"],
    ]
