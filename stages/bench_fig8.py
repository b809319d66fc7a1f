"""bench fig8: prefill latency and decode rate against the tokens a prefill call takes (Sec. 5.3, Fig. 8).

    bluelm bench fig8 MODEL --out build/fig8

t32, t128, t512 and t2048 are run in turns over 2048 tokens, with a KV cache of 2048. On the paper's phone t128 is
fastest. Writing is always one token a call (t1).
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.events import Event, Events
from stages.measure.bench_job import Count, JobConfig, Sizes, run_job

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact
    from stages.measure.summary import Bench, BenchSummary

CLAIMED = 128


class Fig8Config(JobConfig):
    """What is run: the paper's are 2048 tokens in chunks of 32, 128, 512 and 2048."""

    chunk: Sizes = (32, 128, 512, 2048)
    prompt_tokens: Count = 2048
    generate: int = Field(default=32, ge=0)


def run(
    config: Fig8Config, model: Path | None, out: Path | None = None, force: bool = False, keep: Path | None = None
) -> Events[BenchSummary]:
    """Measures reading and writing with each chunk.

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

    yield from recorded_job("bench fig8", config, model, out, force, lambda source: _measure(config, source, keep))


def _measure(config: Fig8Config, source: Artifact | None, keep: Path | None) -> Generator[Event[Any], None, Bench]:
    from stages.measure.bench_charts import fig8_chart
    from stages.measure.beside_paper import beside_fastest, beside_paper
    from stages.measure.findings import fastest_finding
    from stages.measure.paired import fastest
    from stages.measure.summary import Bench, summary_of
    from stages.measure.workload import Workload

    work = Workload(
        chunks=config.chunk,
        batches=(1,),
        prompts=(config.prompt_tokens,),
        generate=config.generate,
        warmup=config.warmup,
        runs=config.runs,
        threads=config.threads,
        seed=config.seed,
        parts=("text",),
    )
    job = yield from run_job(config, work, source, lambda device: (), keep)
    first = [one for one in job.records if one.policy == job.records[0].policy]
    findings, beside = [], list(beside_paper(job.records))
    for test, does, name in (
        ("prefill", "reads a prompt fastest", "reading in t{}"),
        ("decode", "has the fastest decoding behind it", "writing behind t{}"),
    ):
        times = {one.chunk or 0: one.samples_s for one in first if one.test == test}
        if times:
            claim = f"t{CLAIMED} {does}"
            findings.append(fastest_finding(claim, "5.3, Fig. 8", times, CLAIMED, name.format))
            quantity, row = f"fastest {test}, by the median", f"fastest_{test}"
            beside.append(beside_fastest(quantity, "fig8", row, "tokens a call", fastest(times), findings[-1]))
    summary = summary_of(job, config.model_dump(mode="json"), figure="fig8", findings=findings, beside=beside)
    return Bench(job.records, summary, (fig8_chart(job.records, CLAIMED),))
