"""bench tune: which threads, tiles per batch, chunk and activations suit this machine; chat and encode then use them.

    bluelm bench tune MODEL
    bluelm bench tune MODEL --variant OTHER_EXPORT

Threads first, over picture, prompt and answer together; then batches and chunks with these. What the runtime does
anyway stays unless another is faster beyond doubt. Activations are part of an export: variants (of random weights:
policies) are compared, and the fastest is named.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import Artifact, ArtifactSpec, open_artifact
from stages.artifacts.manifest import parent_of
from stages.measure.bench_job import Count, Job, JobConfig, Sizes, run_job
from stages.measure.tuning import Choice, Runs, choose, ratio_of, thread_candidates

if TYPE_CHECKING:
    from stages.device.contract.device_config import DeviceConfig
    from stages.device.runtime.tuned import TunedProfile
    from stages.measure.device_cases import Tiles
    from stages.measure.records import Record
    from stages.measure.summary import Bench, BenchSummary
    from stages.measure.workload import Workload


class TuneConfig(JobConfig):
    """What is tried. `try_threads` are all cores, half of them and one if None; the runtime's own is tried always."""

    tiles: Count = 9
    tiles_per_batch: Sizes = (1, 2, 4, 6)
    chunk: Sizes = (64, 128, 256, 512)
    try_threads: Sizes | None = None
    prompt_tokens: Count = 2048
    generate: int = Field(default=16, ge=1)


@dataclass(frozen=True)
class Tuned:
    """What was found: the measurements, the profile, and where it lies."""

    summary: BenchSummary
    profile: TunedProfile
    place: Path | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        place = None if self.place is None else str(self.place)
        return {"profile": self.profile.model_dump(mode="json"), "place": place, **self.summary.as_dict()}


def run(
    config: TuneConfig,
    model: Path | None,
    variants: Sequence[Path] = (),
    out: Path | None = None,
    force: bool = False,
    keep: Path | None = None,
) -> Events[Tuned]:
    """Tries settings in turns and writes a profile.

    Args:
        config: what to try.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        variants: other exports of the same shape, with other activations.
        out: where to write a `bench` artifact with the profile in it; without it the profile goes into the cache.
        force: replace what is there.
        keep: where random weights stay for the next time.

    Raises:
        UsageError: variants of a preset or of another shape, or a fixed number of threads.
        ArtifactError, ModelError: a model cannot be used.
    """
    from stages.device.runtime.tuned import PROFILE_FILE, profile_place, read_profile
    from stages.measure.summary import recorded

    source = config.source(model)
    others = _variants(config, source, variants)
    parents = tuple(parent_of(one.path) for one in (source, *others) if one is not None)
    spec = ArtifactSpec("bench", "bench tune", config.model_dump(mode="json"), config.seed, parents)
    made: list[TunedProfile] = []
    with ExitStack() as stack:
        kept = keep
        if source is None and keep is None:  # written once for all that is tried
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluelm-tune-")))
        for event in recorded(spec, out, force, lambda: _measure(config, source, others, kept, made)):
            if not isinstance(event, Finished):
                yield event
                continue
            place = out / PROFILE_FILE if out is not None else None
            profile = made[0] if made else read_profile(out or Path())
            if place is None and source is not None and (place := profile_place(source.digest)) is not None:
                profile.write(place)
            yield Finished(Tuned(event.result, profile, place))


def _variants(config: TuneConfig, source: Artifact | None, paths: Sequence[Path]) -> list[Artifact]:
    from stages.device.contract.device_config import read_device_config

    if config.threads is not None:
        raise UsageError(
            f"--threads {config.threads} leaves no threads to choose.",
            "tune tries how many suit this machine.",
            "Leave it out, or name those to try: --try-threads 1 --try-threads 4.",
        )
    if source is None:
        if paths:
            raise UsageError(
                "--variant was given with --preset.", "Random weights have policies instead.", "Use --policy, twice."
            )
        return []
    opened, shape = [open_artifact(path, "onnx") for path in paths], read_device_config(source.path)
    for other in opened:
        device = read_device_config(other.path)
        if (device.decoder, device.vision) != (shape.decoder, shape.vision):
            raise UsageError(
                f"{other.path} has another shape than {source.path}.",
                "Variants are exports of one checkpoint, so that only their activations differ.",
                "Export the same checkpoint with another --recipe.",
            )
    return opened


def _measure(
    config: TuneConfig, source: Artifact | None, variants: Sequence[Artifact], keep: Path | None, made: list[Any]
) -> Generator[Event[Any], None, Bench]:
    from stages.device.runtime.decoder import DEFAULT_CHUNK
    from stages.device.runtime.encoder import DEFAULT_BATCH
    from stages.device.runtime.sessions import available_threads
    from stages.measure.bench_charts import speed_charts
    from stages.measure.picture_tiles import noise_tiles
    from stages.measure.summary import Bench, summary_of

    def pictures(device: DeviceConfig) -> Sequence[Tiles]:
        return [noise_tiles(config.tiles, device, config.seed)]

    cores = available_threads()
    tried = tuple(dict.fromkeys((cores, *(config.try_threads or thread_candidates(cores)))))
    first = config if not config.policy else config.model_copy(update={"policy": config.policy[:1]})
    yield Notice("Threads …")
    usual = _workload(config, (DEFAULT_BATCH,), (DEFAULT_CHUNK,), None)
    job = yield from run_job(first, usual, source, pictures, keep, threads=tried)
    threads = choose(_totals(job.records), cores, _threads, _disturbance(job))
    yield Notice("Tiles per batch and chunks …")
    batches = tuple(dict.fromkeys((DEFAULT_BATCH, *config.tiles_per_batch)))
    chunks = tuple(dict.fromkeys((DEFAULT_CHUNK, *config.chunk)))
    sizes = yield from run_job(first, _workload(config, batches, chunks, threads.value), source, pictures, keep)
    encodes = {one.tiles_per_batch or 0: Runs(one.samples_s, one.run) for one in _of(sizes, "encode")}
    default = DEFAULT_BATCH if DEFAULT_BATCH in encodes else next(iter(encodes))
    batch = choose(encodes, default, _tiles, _disturbance(sizes))
    prefills = {one.chunk or 0: Runs(one.samples_s, one.run) for one in _of(sizes, "prefill")}
    chunk = choose(prefills, DEFAULT_CHUNK, "chunks of {}".format, _disturbance(sizes))
    reasons = [threads.reason, batch.reason, chunk.reason]
    fastest: str | None = None
    compared: tuple[Record, ...] = ()
    if variants or len(config.policies) > 1:
        yield Notice("Activations …")
        last = _workload(config, (batch.value,), (chunk.value,), threads.value)
        forms = yield from run_job(config, last, source, pictures, keep, more=variants)
        fastest, reason = _fastest_form(forms)
        reasons.append(reason)
        compared = forms.records
    profile = _profile(job, source, threads, batch, chunk, fastest, reasons)
    made.append(profile)
    records = (*job.records, *sizes.records, *compared)
    summary = summary_of(
        sizes, config.model_dump(mode="json"), figure="tune", records=records, advice=tuple(reasons), beside=()
    )
    charts = tuple(chart for chart in speed_charts(sizes.records))
    return Bench(records, summary, charts, {"profile.json": profile.model_dump_json(indent=2) + "\n"})


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _tiles(count: int) -> str:
    return f"{count} tile{'s' if count > 1 else ''} per batch"


def _disturbance(job: Job) -> float | None:
    from stages.measure.drift import disturbed_by, drifts

    return disturbed_by(drifts(job.records))


def _workload(config: TuneConfig, batches: Any, chunks: Any, threads: int | None) -> Workload:
    from stages.measure.workload import Workload

    return Workload(
        chunks=chunks,
        batches=batches,
        prompts=(config.prompt_tokens,),
        generate=config.generate,
        warmup=config.warmup,
        runs=config.runs,
        threads=threads,
        seed=config.seed,
    )


def _of(job: Job, test: str) -> list[Record]:
    return [one for one in job.records if one.test == test]


def _totals(records: Sequence[Record]) -> dict[int, Runs]:
    """Of each number of threads a chat's seconds, turn by turn: picture, prompt, answer."""
    totals: dict[int, Runs] = {}
    for threads in dict.fromkeys(one.threads or 0 for one in records):
        mine = [one for one in records if one.threads == threads and one.test != "load"]
        seconds = [sum(turn) for turn in zip(*(one.samples_s for one in mine), strict=True)]
        totals[threads] = Runs(seconds, mine[0].run)
    return totals


def _fastest_form(job: Job) -> tuple[str, str]:
    """The variant that is fastest beyond doubt, else the first; and why."""
    by_name: Mapping[str, list[Record]] = {
        name: [one for one in job.records if (one.policy or job.name) == name and one.test != "load"]
        for name in dict.fromkeys(one.policy or job.name for one in job.records)
    }
    runs = [
        Runs([sum(turn) for turn in zip(*(one.samples_s for one in mine), strict=True)], mine[0].run)
        for mine in by_name.values()
    ]
    names = list(by_name)
    choice = choose(dict(enumerate(runs)), 0, lambda index: f"activations of {names[index]}", _disturbance(job))
    best = names[choice.value]
    others = [
        f"{names[index]} {ratio_of(runs[choice.value], other).median:.2f}"
        for index, other in enumerate(runs)
        if index != choice.value
    ]
    return best, f"{choice.reason} Times as fast as {', '.join(others)}; what it costs in accuracy: bluelm bench eval."


def _profile(
    job: Job,
    source: Artifact | None,
    threads: Choice,
    batch: Choice,
    chunk: Choice,
    fastest: str | None,
    reasons: Sequence[str],
) -> TunedProfile:
    from stages.device.runtime.tuned import TunedProfile, TunedSettings, machine_key
    from stages.measure.machine import describe_machine, describe_versions

    machine = describe_machine()
    about = {name: machine[name] for name in ("cpu", "cores", "instruction_sets")}
    return TunedProfile(
        model=job.name,
        model_digest=None if source is None else source.digest,
        machine=machine_key(),
        made_on={**about, "onnxruntime": describe_versions().get("onnxruntime")},
        settings=TunedSettings(
            tiles_per_batch=None if batch.kept else batch.value,
            chunk=None if chunk.kept else chunk.value,
            threads=None if threads.kept else threads.value,
        ),
        activations=fastest,
        reasons=tuple(reasons),
    )
