"""bench fig5: what runs when, from tiles to words; whether overlapping patch embedding hides it (Sec. 3.2, Fig. 5).

    bluelm bench fig5 MODEL --out build/fig5

The same picture is encoded in turns with patch embedding beside the ViT blocks and before them; then the language model
reads its image tokens and writes.
"""

from __future__ import annotations

import statistics
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.events import Event, Events
from stages.measure.bench_job import Count, Job, JobConfig, run_job

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact
    from stages.device.contract.device_config import DeviceConfig
    from stages.device.runtime.timeline import Span
    from stages.measure.device_cases import Tiles
    from stages.measure.findings import Finding
    from stages.measure.summary import Bench, BenchSummary

# Tokens of a question beside the picture's.
QUESTION_TOKENS = 32


class Fig5Config(JobConfig):
    """What is run; the paper's picture has 9 tiles, 4 a batch. `chunk` is the runtime's own if None."""

    tiles: Count = 9
    tiles_per_batch: Count = 4
    generate: int = Field(default=16, ge=1)
    chunk: Count | None = None


def run(
    config: Fig5Config, model: Path | None, out: Path | None = None, force: bool = False, keep: Path | None = None
) -> Events[BenchSummary]:
    """Measures the timeline.

    Args:
        config: what to run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        out: where to write a `bench` artifact.
        force: replace what is there.
        keep: where random weights stay for the next time.

    Raises:
        UsageError, ArtifactError, ModelError: the model cannot be used.
    """
    from stages.measure.summary import recorded_job

    yield from recorded_job("bench fig5", config, model, out, force, lambda source: _measure(config, source, keep))


def _measure(config: Fig5Config, source: Artifact | None, keep: Path | None) -> Generator[Event[Any], None, Bench]:
    from stages.device.contract.device_config import read_device_config
    from stages.device.imaging.presets import imaging_preset
    from stages.device.runtime.decoder import DEFAULT_CHUNK
    from stages.measure.picture_tiles import noise_tiles
    from stages.measure.summary import Bench, summary_of
    from stages.measure.workload import Workload

    tiling = imaging_preset(str(config.preset)).tiling if source is None else read_device_config(source.path).tiling
    work = Workload(
        chunks=(config.chunk or DEFAULT_CHUNK,),
        batches=(config.tiles_per_batch,),
        prompts=(config.tiles * tiling.tokens_per_tile + QUESTION_TOKENS,),
        generate=config.generate,
        warmup=config.warmup,
        runs=config.runs,
        threads=config.threads,
        seed=config.seed,
        pipelines=(True, False),
    )

    def pictures(device: DeviceConfig) -> Sequence[Tiles]:
        return [noise_tiles(config.tiles, device, config.seed)]

    job = yield from run_job(config, work, source, pictures, keep)
    summary = summary_of(
        job,
        config.model_dump(mode="json"),
        figure="fig5",
        findings=[_finding(job)],
        beside=_beside(job),
    )
    return Bench(job.records, summary, (_chart(job, config),))


def _times(job: Job) -> dict[bool, tuple[float, ...]]:
    return {bool(one.pipeline): one.samples_s for one in job.records if one.test == "encode"}


def _finding(job: Job) -> Finding:
    from stages.measure.findings import gain_finding

    times = _times(job)
    claim = "patch embedding overlapped with the ViT blocks is faster than one after the other"
    return gain_finding(
        claim, "5.3, Fig. 5", times[True], times[False], ("encoding with the pipeline", "one after the other")
    )


def _typical(job: Job) -> Mapping[bool, tuple[Span, ...]]:
    """Of each kind the spans of the run whose time is nearest to the median."""
    times, chosen = _times(job), {}
    for case, runs in job.measured.spans.items():
        if case.model == 0:
            samples = times[case.pipeline]
            middle = statistics.median(samples)
            nearest = min(range(len(runs)), key=lambda run: abs(samples[run] - middle))
            chosen[case.pipeline] = runs[nearest]
    return chosen


def _beside(job: Job) -> list[Any]:
    from stages.device.runtime.timeline import hidden_seconds
    from stages.measure.beside_paper import THEIR_PRESET, Beside
    from stages.measure.paper import paper_tables

    table, spans = paper_tables()["fig5"], _typical(job)[True]
    ours = {
        "blocks_s": sum(span.end - span.start for span in spans if span.part == "blocks"),
        "first_patch_s": next(span.end - span.start for span in spans if span.part == "patch"),
        "encode_s": statistics.median(_times(job)[True]),
        "hidden_s": hidden_seconds(spans),
    }
    said = {
        "blocks_s": "ViT blocks",
        "first_patch_s": "patch embedding of the first batch",
        "encode_s": "picture to image tokens",
        "hidden_s": "patch embedding hidden at most",
    }
    differs = "" if job.name == THEIR_PRESET else f"model {job.name}"
    return [
        Beside(said[key], table.section, "s", value, table.value(key, "seconds"), differs)
        for key, value in ours.items()
    ]


def _chart(job: Job, config: Fig5Config) -> Any:
    from stages.measure.bench_charts import fig5_chart

    spans = _typical(job)
    seconds = {one.test: one.seconds for one in job.records}
    return fig5_chart(spans[True], spans[False], seconds["prefill"], seconds["decode"], config.generate)
