"""The tables of a tiling report, behind its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.measure.report_page import table
from stages.measure.tiling_figures import spelt


def report_tables(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Every table, as HTML."""
    rules = statistics["rules"]
    costly = bool(statistics["costs"])
    columns = ["rule", "tiles", "tokens", "tokens a picture", "enlargement", "resolution kept"]
    columns += ["encoding", "reading"] if costly else []
    longest = max(
        figures.get(key) or 0.0 for figures in rules.values() for key in ("encode_seconds", "prefill_seconds")
    )
    rows = []
    for rule, figures in rules.items():
        row = [rule, f"{figures['tiles']:,}", f"{figures['tokens']:,}", f"{figures['mean_tokens']:,.1f}"]
        row += [f"×{figures['mean_enlargement']:.3f}", _percent(figures["mean_kept"])]
        row += [_time(figures["encode_seconds"], longest), _time(figures["prefill_seconds"], longest)] if costly else []
        rows.append(row)
    yield _table("Rules", columns, rows)
    rows = []
    for rule, counts in statistics["relaxed_vs"].items():
        total = sum(counts.values())
        rows.append([rule, *(f"{counts[key]:,} ({counts[key] / total:.1%})" for key in ("smaller", "equal", "larger"))])
    yield _table("Relaxed is … than", ["rule", "smaller", "equal", "larger"], rows)
    bins = next(iter(rules.values()))["enlargement_histogram"]
    columns = ["rule", *(f"≥ ×{bin['from']:g}" for bin in bins)]
    rows = [
        [rule, *(f"{bin['images']:,}" for bin in figures["enlargement_histogram"])] for rule, figures in rules.items()
    ]
    yield _table("Enlargement: pictures from one edge to the next", columns, rows)
    if statistics["alpha_sweep"]:
        columns = ["α", "tiles", "tokens", "tokens a picture", "resolution kept", "enlargement"]
        rows = [
            [
                *(f"{point['alpha']:g}", f"{point['tiles']:,}", f"{point['tokens']:,}", f"{point['mean_tokens']:,.1f}"),
                *(_percent(point["mean_kept"], 3), f"×{point['mean_enlargement']:.3f}"),
            ]
            for point in statistics["alpha_sweep"]
        ]
        yield _table("The relaxed rule by α", columns, rows)
    rows = [
        [
            *(rule, case["name"], f"{case['width']}×{case['height']}", f"{case['images']:,}"),
            *("{}:{}".format(*case["grid"]), f"×{case['enlargement']:,.1f}"),
        ]
        for rule, figures in rules.items()
        for case in figures["worst"]
    ]
    yield _table("Enlarged most", ["rule", "first picture", "size", "pictures", "grid", "enlargement"], rows)
    if statistics["unread"]["first"]:
        yield _table("Not read, the first", ["what"], [[what] for what in statistics["unread"]["first"]])


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def _time(seconds: float | None, longest: float) -> str:
    return "–" if seconds is None else spelt(seconds, longest)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(title, columns, rows, words=("rule",), long=("first picture", "what"))
