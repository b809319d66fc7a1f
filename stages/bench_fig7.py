"""bench fig7: ViT latency against tiles per batch, on a picture of a phone's screen (Sec. 5.3, Fig. 7).

    bluelm bench fig7 MODEL --out build/fig7

Batches are run in turns. On the paper's phone 4 tiles a batch are fastest.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.events import Event, Events
from stages.measure.bench_job import Count, JobConfig, Sizes, run_job

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact
    from stages.device.contract.device_config import DeviceConfig
    from stages.measure.device_cases import Tiles
    from stages.measure.summary import Bench, BenchSummary

CLAIMED = 4


class Fig7Config(JobConfig):
    """What is run: the paper's are a picture of 9 tiles (grid 2:4 and thumbnail), and 1, 2, 4 and 6 a batch."""

    tiles: Count = 9
    tiles_per_batch: Sizes = (1, 2, 4, 6)


def run(
    config: Fig7Config, model: Path | None, out: Path | None = None, force: bool = False, keep: Path | None = None
) -> Events[BenchSummary]:
    """Measures encoding in batches of each size.

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

    yield from recorded_job("bench fig7", config, model, out, force, lambda source: _measure(config, source, keep))


def _measure(config: Fig7Config, source: Artifact | None, keep: Path | None) -> Generator[Event[Any], None, Bench]:
    from stages.measure.bench_charts import fig7_chart
    from stages.measure.beside_paper import beside_fastest, beside_paper
    from stages.measure.findings import fastest_finding
    from stages.measure.paired import fastest
    from stages.measure.picture_tiles import noise_tiles
    from stages.measure.summary import Bench, summary_of
    from stages.measure.workload import Workload

    work = Workload(
        chunks=(1,),
        batches=config.tiles_per_batch,
        prompts=(1,),
        generate=0,
        warmup=config.warmup,
        runs=config.runs,
        threads=config.threads,
        seed=config.seed,
        parts=("encode",),
    )

    def pictures(device: DeviceConfig) -> Sequence[Tiles]:
        return [noise_tiles(config.tiles, device, config.seed)]

    job = yield from run_job(config, work, source, pictures, keep)
    times = {one.tiles_per_batch or 0: one.samples_s for one in job.records if one.policy == job.records[0].policy}
    claim = f"{CLAIMED} tiles per batch encode a picture of {config.tiles} tiles fastest"
    finding = fastest_finding(claim, "5.3, Fig. 7", times, CLAIMED, _named)
    row = beside_fastest("fastest, by the median", "fig7", "fastest", "tiles per batch", fastest(times), finding)
    beside = [*beside_paper(job.records), row]
    summary = summary_of(job, config.model_dump(mode="json"), figure="fig7", findings=[finding], beside=beside)
    return Bench(job.records, summary, (fig7_chart(job.records, CLAIMED),))


def _named(tiles: int) -> str:
    return f"{tiles} tile{'s' if tiles > 1 else ''} per batch"
