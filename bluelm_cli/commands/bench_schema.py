"""`bluelm bench schema`: the JSON schema of a line of results.jsonl."""

from __future__ import annotations

from bluelm_cli import console


def schema() -> None:
    """Print the JSON schema of a line of results.jsonl: what every speed bench writes.

    Example: bluelm bench schema > record.schema.json
    """
    from stages.measure.records import record_schema

    console.emit_json(record_schema())
