"""What a bench found, as tables: speeds beside the machine's ceilings, and operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bluelm_cli import console

CEILINGS = {
    "read_gb_s": "memory read, GB/s",
    "int8_gop_s": "INT8 product, GOP/s",
    "float32_gop_s": "float32 product, GOP/s",
}
COLUMNS = (
    *(
        "test",
        "engine",
        "policy",
        "threads",
        "overlap",
        "chunk",
        "batch",
        "tiles",
        "tokens",
        "generated",
        "KV",
        "seconds",
        "ms/tile",
    ),
    *("ms/token", "tok/s", "spread", "GB/s", "GOP/s", "of ceiling"),
)
# Operators that take less are left to --json.
SMALLEST_SHARE = 0.005
# Columns that one bench has no value for are left out, except these.
_ALWAYS = ("test", "tokens", "seconds", "tok/s")
_SHARED = ("engine", "threads", "overlap")


def show(summary: Mapping[str, Any], out: Path | None = None) -> None:
    """Prints the speeds of a bench, what they say of the paper's findings, and ours beside the paper's."""
    rows = [_row(row) for row in summary["rows"]]
    kept = [i for i, name in enumerate(COLUMNS) if name in _ALWAYS or _tells([row[i] for row in rows], name)]
    machine = summary["machine"]
    title = f"{summary['model']}: medians of {summary['settings']['runs']} runs on {machine['cpu']}"
    console.emit_table(title, [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows])
    if summary["paper"]:
        columns = ["beside the paper", "here", "its phone", "unit", "not the same"]
        keys = ("quantity", "ours", "paper", "unit", "differs")
        told = [[row[key] or None for key in keys] for row in summary["paper"]]
        console.emit_table("the paper's phone: a MediaTek Dimensity 9300 with its NPU", columns, told)
    if summary["ceilings"]:
        rows = [
            [name, summary["ceilings"][key]["median"], summary["ceilings"][key]["best"]]
            for key, name in CEILINGS.items()
        ]
        console.emit_table("what this machine reached in turns with it", ["ceiling", "median", "best"], rows)
    forms = {(row["test"], row["policy"]): row["forms"] for row in summary["rows"] if row["forms"]}
    for (test, policy), text in forms.items():
        console.emit_text(f"{test}{f', {policy}' if policy else ''}: {text}")
    stage = "" if summary["peak_stage"] is None else f" ({summary['peak_stage']})"
    console.emit_text(f"peak memory {summary['peak_rss_mb']:,.0f} MB{stage}, {machine['cores']} cores")
    for finding in summary["findings"]:
        console.emit_text(finding["sentence"])
    for sentence in summary["advice"]:
        console.emit_text(sentence)
    if out is not None:
        console.note(f"Figures and tables: {out / 'report.html'}")


def show_operators(table: Mapping[str, Any]) -> None:
    """Prints where the time goes: by role, then by operator."""
    parts = {part["part"]: part for part in table["parts"]}
    roles = dict.fromkeys(role for part in parts.values() for role in part["roles"])
    rows = [[role, *[_percent(part["roles"].get(role)) for part in parts.values()]] for role in roles]
    machine = table["machine"]
    console.emit_table(f"{table['model']}: shares of the time on {machine['cpu']}", ["what for", *parts], rows)
    rows = [
        [row["part"], row["role"], row["op"], row["calls"], 1000 * row["seconds"], _percent(row["share"])]
        for row in table["rows"]
        if row["share"] >= SMALLEST_SHARE
    ]
    console.emit_table(
        f"operators from {_percent(SMALLEST_SHARE)} on", ["part", "what for", "operator", "calls", "ms", "share"], rows
    )


def _tells(values: Sequence[Any], name: str) -> bool:
    """Whether a column is worth its place: it has values and, where all rows of a bench share one, several."""
    found = {value for value in values if value is not None}
    return len(found) > 1 if name in _SHARED else bool(found)


def _row(row: Mapping[str, Any]) -> list[Any]:
    spread = None if row["stddev_ts"] is None else f"± {100 * row['stddev_ts'] / row['avg_ts']:.0f} %"
    return [
        *(row["test"], row["engine"], row["policy"], row["threads"], row["pipeline"], row["chunk"]),
        *(row["tiles_per_batch"], row["tiles"], row["n_prompt"]),
        *(row["n_gen"], row["kv"], row["seconds"], row["ms_per_tile"], row["ms_per_token"], row["tok_s"], spread),
        *(row["gb_s"], row["gop_s"], _percent(row["ceiling_share"])),
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"
