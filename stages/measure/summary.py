"""What a bench found: the records, what they were measured on, what they say, and the peak of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ArtifactError
from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import Artifact, ArtifactSpec, create, up_to_date
from stages.artifacts.manifest import parent_of
from stages.device.runtime.memory import peak_rss_mb
from stages.measure.beside_paper import Beside, beside_paper
from stages.measure.drift import disturbed_by, drift_sentences, drifts
from stages.measure.findings import withheld
from stages.measure.machine import describe_machine, describe_versions
from stages.measure.record_files import RESULTS_FILE
from stages.measure.records import Record, write_records

if TYPE_CHECKING:
    from stages.measure.bench_job import Job, JobConfig
    from stages.measure.ceilings import Ceiling
    from stages.measure.charts import Chart
    from stages.measure.findings import Finding

SUMMARY_FILE = "bench.json"


@dataclass(frozen=True)
class BenchSummary:
    """One bench.

    Attributes:
        model: name of the model.
        rows: the records as plain data.
        peak_rss_mb: largest memory of the process, in MB; of several models run in turns, of all of them together.
        machine: CPU, cores, memory; nothing that names it.
        versions: packages that ran the model.
        settings: what was asked for.
        peak_stage: what was running when it was reached: "load", "encode" or "text".
        ceilings: what the machine reached beside it, best and median; None where that was left out.
        figure: which command made it: "run", "fig5" …
        findings: whether what the paper found holds here.
        paper: ours beside the paper's.
        drift: whether the machine changed meanwhile, test by test.
        warnings: what to know before these figures are used.
        advice: what was chosen for this machine, and why.
    """

    model: str
    rows: tuple[dict[str, Any], ...]
    peak_rss_mb: float
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    peak_stage: str | None = None
    ceilings: dict[str, dict[str, float]] | None = None
    figure: str = "run"
    findings: tuple[dict[str, Any], ...] = ()
    paper: tuple[dict[str, Any], ...] = ()
    drift: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints and `bench.json` holds."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def summarise(
    model: str,
    records: tuple[Record, ...],
    settings: dict[str, Any],
    peak_stage: str | None = None,
    ceilings: Mapping[str, Ceiling] | None = None,
    figure: str = "run",
    findings: Sequence[Finding] = (),
    beside: Sequence[Beside] | None = None,
    advice: tuple[str, ...] = (),
) -> BenchSummary:
    """Puts records together with the machine as it is now.

    Args:
        model: name of the model.
        records: what was measured, peers too.
        settings: what was asked for.
        peak_stage: see `BenchSummary`.
        ceilings: see `BenchSummary`.
        figure: which command made it.
        findings: about the paper's claims.
        beside: ours beside the paper's; of Table 5 and memory, as far as the records hold them, if None.
        advice: see `BenchSummary`.
    """
    drifted = drifts(records)
    others = disturbed_by(drifted)
    peak = round(peak_rss_mb(), 1)
    whole = {"load", "encode", "prefill"} <= {record.test for record in records}
    found = beside_paper(records, peak if whole else None) if beside is None else beside
    return BenchSummary(
        model=model,
        rows=tuple(record.as_dict() for record in records),
        peak_rss_mb=peak,
        machine=describe_machine(),
        versions=describe_versions(),
        settings=settings,
        peak_stage=peak_stage,
        ceilings=None if ceilings is None else {name: asdict(ceiling) for name, ceiling in ceilings.items()},
        figure=figure,
        findings=tuple((withheld(one, others) if others is not None else one).as_dict() for one in findings),
        paper=tuple(row.as_dict() for row in found),
        drift=tuple(drift.as_dict() for drift in drifted),
        warnings=drift_sentences(drifted),
        advice=advice,
    )


def summary_of(job: Job, settings: dict[str, Any], **more: Any) -> BenchSummary:
    """The summary of what a job measured; `more` as `summarise` takes it."""
    return summarise(job.name, more.pop("records", job.records), settings, job.peak_stage, job.ceilings, **more)


@dataclass(frozen=True)
class Bench:
    """A finished bench: its records, what they say, how it is drawn, and further files by name."""

    records: tuple[Record, ...]
    summary: BenchSummary
    charts: tuple[Chart, ...]
    files: Mapping[str, str] = field(default_factory=dict)


def recorded(
    spec: ArtifactSpec, out: Path | None, force: bool, measure: Callable[[], Generator[Event[Any], None, Bench]]
) -> Events[BenchSummary]:
    """Runs a bench and keeps what it found as a `bench` artifact.

    Args:
        spec: what is made.
        out: where; nothing is kept without it.
        force: replace what is there.
        measure: the bench; not called where the artifact is up to date.

    Raises:
        ArtifactError: something else is there.
    """
    if out is None:
        bench = yield from measure()
    elif up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(read_summary(out))
        return
    else:
        with create(out, spec, force=force) as draft:
            bench = yield from measure()
            write_bench(draft.path, bench)
    for sentence in bench.summary.warnings:
        yield Notice(sentence, "warning")
    yield Finished(bench.summary)


def recorded_job(
    stage: str,
    config: JobConfig,
    model: Path | None,
    out: Path | None,
    force: bool,
    measure: Callable[[Artifact | None], Generator[Event[Any], None, Bench]],
) -> Events[BenchSummary]:
    """`recorded` for a bench that its configuration and one model decide.

    Args:
        stage: the command.
        config: what is run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        out: where to write a `bench` artifact; nothing is kept without it.
        force: replace what is there.
        measure: the bench of the opened model; None of random weights.

    Raises:
        UsageError, ArtifactError: the model cannot be used, or something else is in the way.
    """
    source = config.source(model)
    parents = () if source is None else (parent_of(source.path),)
    spec = ArtifactSpec("bench", stage, config.model_dump(mode="json"), config.seed, parents)
    yield from recorded(spec, out, force, lambda: measure(source))


def write_bench(folder: Path, bench: Bench) -> None:
    """Writes `results.jsonl` (a record a line), `bench.json` (everything), `report.html`, each chart as SVG and PNG."""
    from stages.measure.bench_report import write_bench_report

    write_records(folder / RESULTS_FILE, bench.records)
    text = json.dumps(bench.summary.as_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    write_bench_report(folder, bench)
    for name, content in bench.files.items():
        (folder / name).write_text(content, encoding="utf-8")


def read_summary(folder: Path) -> BenchSummary:
    """Reads `bench.json`.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = folder / SUMMARY_FILE
    several = ("rows", "findings", "paper", "drift", "warnings", "advice")
    try:
        values = json.loads(path.read_bytes())
        return BenchSummary(**{**values, **{name: tuple(values[name]) for name in several if name in values}})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}.",
            "It holds what was measured.",
            "Measure again: bluelm bench MODEL --out FOLDER --force",
        ) from error
