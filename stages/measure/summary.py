"""What a bench found: the records, what they were measured on, and the peak of memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ArtifactError
from stages.device.runtime.memory import peak_rss_mb
from stages.measure.machine import describe_machine, describe_versions
from stages.measure.records import Record, write_records

if TYPE_CHECKING:
    from stages.measure.ceilings import Ceiling

RESULTS_FILE = "results.jsonl"
SUMMARY_FILE = "bench.json"


@dataclass(frozen=True)
class BenchSummary:
    """One bench.

    Attributes:
        model: name of the model.
        rows: the records as plain data.
        peak_rss_mb: largest memory of the process, in MB; of several models run in turns, of all of them together.
        peak_stage: what was running when it was reached: "load", "encode" or "text".
        ceilings: what the machine reached beside it, best and median; None where that was left out.
        machine: CPU, cores, memory; nothing that names it.
        versions: packages that ran the model.
        settings: what was asked for.
    """

    model: str
    rows: tuple[dict[str, Any], ...]
    peak_rss_mb: float
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    peak_stage: str | None = None
    ceilings: dict[str, dict[str, float]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints and `bench.json` holds."""
        return {
            "model": self.model,
            "rows": list(self.rows),
            "peak_rss_mb": self.peak_rss_mb,
            "peak_stage": self.peak_stage,
            "ceilings": self.ceilings,
            "machine": self.machine,
            "versions": self.versions,
            "settings": self.settings,
        }


def summarise(
    model: str,
    records: tuple[Record, ...],
    settings: dict[str, Any],
    peak_stage: str | None = None,
    ceilings: Mapping[str, Ceiling] | None = None,
) -> BenchSummary:
    """Puts records together with the machine as it is now."""
    return BenchSummary(
        model=model,
        rows=tuple(record.as_dict() for record in records),
        peak_rss_mb=round(peak_rss_mb(), 1),
        machine=describe_machine(),
        versions=describe_versions(),
        settings=settings,
        peak_stage=peak_stage,
        ceilings=None if ceilings is None else {name: asdict(ceiling) for name, ceiling in ceilings.items()},
    )


def write_summary(folder: Path, records: tuple[Record, ...], summary: BenchSummary) -> None:
    """Writes `results.jsonl` (a record a line) and `bench.json` (everything)."""
    write_records(folder / RESULTS_FILE, records)
    text = json.dumps(summary.as_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")


def read_summary(folder: Path) -> BenchSummary:
    """Reads `bench.json`.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = folder / SUMMARY_FILE
    try:
        values = json.loads(path.read_bytes())
        return BenchSummary(**{**values, "rows": tuple(values["rows"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}.",
            "It holds what was measured.",
            "Measure again: bluelm bench MODEL --out FOLDER --force",
        ) from error
