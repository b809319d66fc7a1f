"""bench paper: every table of the paper as data, and ours beside it where the same quantity was measured.

bluelm bench paper                          the tables, and the published tiling cases decided here
bluelm bench paper build/table5 stats.json  with what benches and `bluelm tile --stats --json` found
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import plan_tiling
from stages.measure.beside_paper import Beside, beside_paper
from stages.measure.paper import PaperTable, paper_tables
from stages.measure.summary import SUMMARY_FILE, read_summary

_STATS = "relaxed_vs"


@dataclass(frozen=True)
class PublishedCase:
    """A picture whose grid the paper tells: theirs and ours, columns:rows."""

    picture: str
    rule: str
    paper: str
    ours: str

    def as_dict(self) -> dict[str, Any]:
        """The case as plain data."""
        return {**vars(self), "same": self.paper == self.ours}


@dataclass(frozen=True)
class PaperComparison:
    """The paper's tables, the published cases, and what was measured beside them."""

    tables: dict[str, PaperTable]
    cases: tuple[PublishedCase, ...]
    rows: tuple[Beside, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "tables": [table.model_dump(mode="json") for table in self.tables.values()],
            "cases": [case.as_dict() for case in self.cases],
            "rows": [row.as_dict() for row in self.rows],
        }


def run(paths: Sequence[Path] = ()) -> PaperComparison:
    """Reads the paper's tables and what was measured.

    Args:
        paths: bench folders, records, or what `bluelm tile --stats --json` printed.

    Raises:
        ArtifactError, UsageError: something that is neither; all of them together.
    """
    tables = paper_tables()
    rows: list[Beside] = []
    problems: list[BluelmError] = []
    for path in paths:
        try:
            rows += _beside(path, tables)
        except BluelmError as problem:
            problems.append(problem)
    raise_all(problems)
    return PaperComparison(tables, tuple(_cases(tables["cases"])), tuple(rows))


def _beside(path: Path, tables: dict[str, PaperTable]) -> Sequence[Beside]:
    from stages.measure.record_files import read_records

    if (path / SUMMARY_FILE).is_file():
        return [Beside(**row) for row in read_summary(path).paper]
    statistics = _statistics(path)
    if statistics is None:
        return beside_paper(read_records(path))
    return list(_counts(path, statistics, tables["sec5.1"]))


def _statistics(path: Path) -> dict[str, Any] | None:
    """What `tile --stats --json` printed; None where the file is something else."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and _STATS in found else None


def _counts(path: Path, statistics: dict[str, Any], table: PaperTable) -> Iterator[Beside]:
    """How often relaxed takes a smaller or larger grid: as shares, since the pictures are others."""
    images = table.settings["images"]
    assert isinstance(images, int)
    try:
        config, total = statistics["config"], int(statistics["images"])
        differs = f"{total:,} pictures of {', '.join(map(str, statistics['inputs']))}"
        if (config["max_cols"], config["max_rows"], config["max_tiles"]) != (3, 3, None):
            differs += "; candidates are not 1:1 to 3:3 (--max-grid 3x3)"
        for row in table.rows:
            rule = str(row["rule"])
            for way in ("smaller", "larger"):
                theirs, counts = row[way], statistics[_STATS].get(rule)
                if isinstance(theirs, int) and counts is not None:
                    quantity = f"relaxed takes a {way} grid than {rule}"
                    yield Beside(
                        quantity, table.section, "%", 100 * counts[way] / total, 100 * theirs / images, differs
                    )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"{path} lacks what bluelm tile --stats --json prints: {error}.",
            "Shares are taken from it.",
            "Print it again: bluelm tile SIZES --stats --max-grid 3x3 --json",
        ) from error


def _cases(table: PaperTable) -> Iterator[PublishedCase]:
    """The published cases as this code decides them."""
    for row in table.rows:
        width, height = map(int, str(row["picture"]).split("x"))
        rule: RuleName = str(row["rule"])  # type: ignore[assignment]
        spec = TilingSpec(rule=rule, max_cols=3, max_rows=3)
        grid = plan_tiling(Size(width, height), spec).grid
        yield PublishedCase(str(row["picture"]), rule, str(row["grid"]), f"{grid.cols}:{grid.rows}")
