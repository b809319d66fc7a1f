"""`bluelm doctor`: whether this machine and this installation are fit for the work."""

from __future__ import annotations

import typer

from bluelm_cli import console
from bluelm_cli.options import Json
from stages.artifacts.errors import BluelmError

MARKS = {"ok": "ok", "slow": "slow", "wrong": "WRONG"}


def doctor(as_json: Json = False) -> None:
    """Check instruction sets, threads, memory, bandwidth and versions that don't fit together.

    Exits with 2 when something is wrong.

    Example: bluelm doctor --json
    """
    try:
        from stages.measure.health import examine

        findings = list(examine())
    except ImportError as error:
        raise BluelmError(
            f"A package that every command needs is not installed: {error.name}.",
            "Not even the check can run.",
            "Install bluelm again: pip install --constraint constraints.txt bluelm",
        ) from error
    if as_json:
        console.emit_json({"findings": [vars(item) for item in findings]})
    else:
        rows = [[item.name, item.value, MARKS[item.verdict], item.advice] for item in findings]
        console.emit_table("this machine and this installation", ["what", "found", "verdict", "advice"], rows)
    if any(item.verdict == "wrong" for item in findings):
        raise typer.Exit(2)
