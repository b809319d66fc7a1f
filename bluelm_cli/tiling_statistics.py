"""The statistics of `bluelm tile --stats` as tables, and its flags."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from bluelm_cli import console
from stages.artifacts.errors import BluelmError, UsageError

# The report and --json have all of them.
_WORST_SHOWN = 2
# Bins of the enlargement as a terminal has room for them: up to these edges.
_EDGES = (1.0, 2.0, 4.0, 8.0, 16.0)


def stats_problems(cutting: Mapping[str, Any], counting: Mapping[str, Any], wanted: bool) -> list[BluelmError]:
    """Flags that do not go together with what is asked for.

    Args:
        cutting: values of flags that decide, draw or write single pictures; false ones are not given.
        counting: values of flags that say how to count.
        wanted: whether statistics are asked for.
    """
    wrong = [name for name, value in (cutting if wanted else counting).items() if value not in (None, False, [], ())]
    if wanted:
        return [
            UsageError(
                f"{name} does not go with --stats.",
                "Statistics compare all rules from sizes alone; no picture is cut or drawn.",
                "Leave out one of the two; --rules names the rules to compare.",
            )
            for name in wrong
        ]
    return [
        UsageError(f"{name} needs --stats.", "It says how statistics are made.", f"Write --stats {name}.")
        for name in wrong
    ]


def print_statistics(statistics: Mapping[str, Any]) -> None:
    """A table for each question.

    Args:
        statistics: what `--json` prints.
    """
    rules, images = statistics["rules"], statistics["images"]
    _print_rules(rules, images, statistics["costs"])
    shares = [
        [rule, *(counts[key] for key in _GRIDS), *(_percent(counts[key] / images) for key in _GRIDS)]
        for rule, counts in statistics["relaxed_vs"].items()
    ]
    if shares:
        columns = ["than", *_GRIDS, *(f"{key} %" for key in _GRIDS)]
        console.emit_table("the relaxed rule's grid (for counted schemes: tokens) is", columns, shares)
    rows = [[rule, *_coarse(figures["enlargement_histogram"], images)] for rule, figures in rules.items()]
    steps = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(_EDGES)]
    console.emit_table(
        "canvas area over picture area, % of pictures", ["rule", f"<{_EDGES[0]:g}", *steps, f"≥{_EDGES[-1]:g}"], rows
    )
    worst = [
        [rule, case["name"], f"{case['width']}×{case['height']}", "{}:{}".format(*case["grid"]), case["enlargement"]]
        for rule, figures in rules.items()
        for case in figures["worst"][:_WORST_SHOWN]
    ]
    if worst:
        console.emit_table("enlarged most", ["rule", "picture", "size", "grid", "area ×"], worst)
    points = statistics["alpha_sweep"]
    if points:
        columns = ["alpha", "tiles", "tokens", "a picture", "kept %", "area ×"]
        figures = ("alpha", "tiles", "tokens", "mean_tokens", "mean_kept", "mean_enlargement")
        sweep = [[_percent(point[key]) if key == "mean_kept" else point[key] for key in figures] for point in points]
        console.emit_table(
            "the relaxed rule by alpha (0 is another rule: the first large canvas stays)", columns, sweep
        )
    if statistics["report"]:
        console.emit_text(f"report in {statistics['report']}")


_GRIDS = ("smaller", "equal", "larger")


def _print_rules(rules: Mapping[str, Any], images: int, costs: Mapping[str, Any] | None) -> None:
    keys = ("tiles", "tokens", "mean_tokens", "mean_enlargement")
    rows = [[rule, *(figures[key] for key in keys), _percent(figures["mean_kept"])] for rule, figures in rules.items()]
    columns = ["rule", "tiles", "tokens", "a picture", "area ×", "kept %"]
    console.emit_table(f"{images:,} picture{'s' if images > 1 else ''}", columns, rows)
    if costs:
        known = [key for key in ("encode", "prefill") if any(f[f"{key}_seconds"] is not None for f in rules.values())]
        rows = [[rule, *(figures[f"{key}_seconds"] for key in known)] for rule, figures in rules.items()]
        console.emit_table(f"seconds ({costs['source']})", ["rule", *known], rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _coarse(bins: list[Mapping[str, Any]], images: int) -> list[float]:
    """Percent of pictures below the first of `_EDGES`, between two, and from the last on."""
    sums = [0] * (len(_EDGES) + 1)
    for bin in bins:
        sums[sum(edge <= bin["from"] for edge in _EDGES)] += bin["images"]
    return [round(100 * count / images, 1) for count in sums]
