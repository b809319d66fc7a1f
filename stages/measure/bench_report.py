"""The report of a bench: what was found in a sentence, the figures, the paper beside it, and every record behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.measure.chart_png import write_png
from stages.measure.charts import chart_table, draw, number
from stages.measure.report_page import REPORT_FILE, note, render_page, section, standalone, table, write_page

if TYPE_CHECKING:
    from stages.measure.summary import Bench

GENERATOR = "bluelm bench"
TITLES = {
    "run": "How fast it is here",
    "fig5": "Fig. 5 here: patch embedding beside the ViT blocks",
    "fig7": "Fig. 7 here: tiles per batch",
    "fig8": "Fig. 8 here: tokens a call",
    "table5": "Table 5 here",
    "tune": "What suits this machine",
}
_WORDS = ("test", "engine", "model", "policy", "KV", "what", "of", "unit", "note", "lane", "part", "quantity", "where")
_LONG = ("not the same", "what of it", "value of it")


def write_bench_report(folder: Path, bench: Bench) -> None:
    """Writes `report.html`, and each chart as SVG and PNG."""
    write_page(folder / REPORT_FILE, render_bench(bench))
    for chart in bench.charts:
        (folder / f"{chart.name}.svg").write_text(standalone(draw(chart)), encoding="utf-8")
        write_png(folder / f"{chart.name}.png", chart)


def render_bench(bench: Bench) -> str:
    """The report as HTML."""
    summary = bench.summary.as_dict()
    title = TITLES.get(summary["figure"], summary["figure"])
    return render_page(GENERATOR, title, _facts(summary), _figures(bench, summary), _tables(bench, summary))


def _facts(summary: Mapping[str, Any]) -> str:
    machine, versions = summary["machine"], summary["versions"]
    sets = " ".join(machine["instruction_sets"])
    told = f"{summary['model']} on {machine['cpu']}, {machine['cores']} cores ({sets}), "
    told += f"{machine['memory_mb'] / 1024:.0f} GiB."
    told += f" Peak memory {summary['peak_rss_mb']:,.0f} MB."
    return told + " " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _figures(bench: Bench, summary: Mapping[str, Any]) -> Iterator[str]:
    yield from (note(found["sentence"], "finding") for found in summary["findings"])
    yield from (note(sentence, "finding") for sentence in summary["advice"])
    yield from (note(warning, "warning") for warning in summary["warnings"])
    yield from (section(chart.title, chart.about, draw(chart)) for chart in bench.charts)


def _tables(bench: Bench, summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["paper"]:
        columns = ["quantity", "where", "here", "the paper's phone", "unit", "not the same"]
        rows = [
            [row["quantity"], row["section"], number(row["ours"]), number(row["paper"]), row["unit"], row["differs"]]
            for row in summary["paper"]
        ]
        yield _table("Beside the paper", columns, rows)
    for chart in bench.charts:
        yield _table(chart.title, *chart_table(chart))
    yield _table("Every record", *record_table(summary["rows"]))
    if summary["ceilings"]:
        rows = [[name, number(top["median"]), number(top["best"])] for name, top in summary["ceilings"].items()]
        yield _table("What this machine reached in turns with it, 10^9 a second", ["what", "median", "best"], rows)
    rows = [_drift(one) for one in summary["drift"]]
    yield _table("Drift", ["test", "turns", "change over them", "by chance", "noise", "others had"], rows)
    settings = [[name, _setting(value)] for name, value in summary["settings"].items()]
    yield _table("Settings", ["what", "value of it"], settings)


def _drift(one: Mapping[str, Any]) -> list[str]:
    others = "–" if one["others"] is None else f"{one['others']:.0%}"
    shares = [f"{one['change']:+.1%}", f"{one['chance']:.1%}", f"{one['noise']:.1%}", others]
    return [one["test"], str(one["turns"]), *shares]


_COLUMNS = {
    "engine": "engine",
    "test": "test",
    "policy": "policy",
    "threads": "threads",
    "chunk": "chunk",
    "tiles_per_batch": "tiles a batch",
    "pipeline": "overlapped",
    "tiles": "tiles",
    "n_prompt": "tokens",
    "n_gen": "generated",
    "kv": "KV",
    "seconds": "seconds",
    "ms_per_tile": "ms a tile",
    "tok_s": "tok/s",
    "stddev_ts": "± tok/s",
    "gb_s": "GB/s",
    "gop_s": "GOP/s",
    "peak_rss_mb": "peak MB",
}


def record_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of records; columns without any value are left out."""
    kept = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
    return [_COLUMNS[key] for key in kept], [[_cell(row.get(key)) for key in kept] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "–"
    return "–" if value is None else "yes" if value is True else "no" if value is False else str(value)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without its empty columns."""
    kept = [index for index in range(len(columns)) if any(row[index] not in ("", "–") for row in rows)]
    columns, rows = [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
    return table(title, columns, rows, words=_WORDS, long=_LONG)
