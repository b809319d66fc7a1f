"""bench table5: load, picture, prefill, decode and memory of one chat (Sec. 5.3, Table 5), llama.cpp beside.

    bluelm bench table5 MODEL --out build/table5
    BLUELM_PEER_LLAMA_PYTHON=WORK/environments/llama/bin/python bluelm bench table5 …

The paper's case: a picture of 9 tiles, 2048 tokens, a KV cache of 2048. llama.cpp reads and writes in turns with ours,
on random weights of the same shape; it has no picture of ours to look at.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.events import Event, Events, Notice
from stages.artifacts.folder import Artifact, ArtifactSpec
from stages.artifacts.manifest import parent_of
from stages.measure.bench_job import Count, JobConfig, run_job

if TYPE_CHECKING:
    from stages.device.contract.device_config import DeviceConfig
    from stages.measure.charts import Bar
    from stages.measure.device_cases import Tiles
    from stages.measure.findings import Finding
    from stages.measure.records import Record
    from stages.measure.summary import Bench, BenchSummary


class Table5Config(JobConfig):
    """What is run. `tiles_per_batch` and `chunk` are the runtime's own if None."""

    tiles: Count = 9
    tiles_per_batch: Count | None = None
    prompt_tokens: Count = 2048
    chunk: Count | None = None
    generate: int = Field(default=32, ge=1)


def run(
    config: Table5Config,
    model: Path | None,
    out: Path | None = None,
    force: bool = False,
    keep: Path | None = None,
    llama: Path | None = None,
) -> Events[BenchSummary]:
    """Measures everything that Table 5 has.

    Args:
        config: what to run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        out: where to write a `bench` artifact.
        force: replace what is there.
        keep: where random weights stay for the next time, llama.cpp's too.
        llama: a python that has llama-cpp-python and gguf; None leaves llama.cpp out.

    Raises:
        UsageError, ArtifactError, ModelError: the model, or llama.cpp beside it, cannot be used.
    """
    from stages.measure.summary import recorded

    source = config.source(model)
    parents = () if source is None else (parent_of(source.path),)
    settings = {**config.model_dump(mode="json"), "llama": llama is not None}
    spec = ArtifactSpec("bench", "bench table5", settings, config.seed, parents)
    yield from recorded(spec, out, force, lambda: _measure(config, source, keep, llama))


def _measure(
    config: Table5Config, source: Artifact | None, keep: Path | None, llama: Path | None
) -> Generator[Event[Any], None, Bench]:
    from stages.device.runtime.decoder import DEFAULT_CHUNK
    from stages.device.runtime.encoder import DEFAULT_BATCH
    from stages.measure.bench_charts import table5_chart
    from stages.measure.llama_peer import ENGINE, LlamaPeer
    from stages.measure.picture_tiles import noise_tiles
    from stages.measure.summary import Bench, summary_of
    from stages.measure.workload import Workload

    work = Workload(
        chunks=(config.chunk or DEFAULT_CHUNK,),
        batches=(config.tiles_per_batch or DEFAULT_BATCH,),
        prompts=(config.prompt_tokens,),
        generate=config.generate,
        warmup=config.warmup,
        runs=config.runs,
        threads=config.threads,
        seed=config.seed,
    )

    def pictures(device: DeviceConfig) -> Sequence[Tiles]:
        return [noise_tiles(config.tiles, device, config.seed)]

    peer = None if llama is None else LlamaPeer(llama, keep)
    if peer is None:
        yield Notice("llama.cpp is left out: BLUELM_PEER_LLAMA_PYTHON or --llama-python names a python that has it.")
    job = yield from run_job(config, work, source, pictures, keep, None if peer is None else peer.take)
    theirs = () if peer is None else tuple(peer.records(job.measured.peers[ENGINE], job.records[0]))
    records = (*job.records, *theirs)
    settings = {**config.model_dump(mode="json"), "llama": llama is not None}
    findings = list(_findings(job.records, theirs))
    summary = summary_of(job, settings, figure="table5", records=records, findings=findings)
    return Bench(records, summary, (table5_chart(_rows(records, summary)),))


def _findings(ours: Sequence[Record], theirs: Sequence[Record]) -> Iterator[Finding]:
    from stages.measure.findings import gain_finding

    for peer in theirs:
        does = "reading a prompt" if peer.test == "prefill" else "writing"
        for one in ours:
            # Of models that do not fit into memory together only the first ran in turns with it.
            if (one.test, one.run) == (peer.test, peer.run):
                label = does + (f" with policy {one.policy}" if one.policy else "")
                claim = f"{does} is faster than llama.cpp's"
                yield gain_finding(
                    claim, "5.3, Table 5", one.samples_s, peer.samples_s, (label, f"llama.cpp's ({peer.model})")
                )


def _rows(records: Sequence[Record], summary: BenchSummary) -> Iterator[tuple[str, str, list[Bar]]]:
    """A panel for each quantity of the table: ours, llama.cpp's, the paper's."""
    from stages.measure.bench_charts import record_bar
    from stages.measure.charts import Bar
    from stages.measure.records import OURS

    paper = {row["quantity"]: row["paper"] for row in summary.paper}
    peaks: dict[str, float] = {}
    for one in records:
        peaks[one.engine] = max(peaks.get(one.engine, 0.0), one.peak_rss_mb or 0.0)

    def theirs(quantity: str) -> list[Bar]:
        return [Bar("the paper's phone, 3B", paper[quantity], "paper")] if quantity in paper else []

    for test, title, unit, quantity in (
        ("load", "Loading", "s", "load"),
        ("encode", "Picture to image tokens", "s", "picture to image tokens"),
        ("prefill", "Reading the prompt", "s", "prefill"),
        ("decode", "Writing", "token/s", "decode"),
    ):
        bars = [
            record_bar(
                one,
                lambda one: (one.samples_ts or ()) if one.test == "decode" else one.samples_s,
                "ours" + (f", {one.policy}" if one.policy else "") if one.engine == OURS else one.engine,
            )
            for one in records
            if one.test == test
        ]
        yield title, unit, [*bars, *theirs(quantity)]
    bars = [
        Bar("ours" if name == OURS else name, peak / 1000, "accent" if name == OURS else "plain")
        for name, peak in peaks.items()
        if peak
    ]
    yield "Peak memory", "GB", [*bars, *theirs("peak memory")]
