"""bench: how fast exported models load, encode, read and write on this machine, beside what the machine reaches.

    bluelm bench MODEL --chunk 128 --chunk 512
    bluelm bench --preset bluelm-v-3b --layers 4 --policy mix --policy paper

A preset means random weights of its shape: what a model costs does not depend on what it has learned. Several policies
are several models, run in turns (A-B-A-B) where memory holds them all. Another process writes them, and one more
measures the ceilings, so that neither counts as memory of running a model; torch is not imported here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import Artifact, ArtifactSpec, create, up_to_date
from stages.artifacts.manifest import parent_of
from stages.measure.random_models import PREPACKED, ModelChoice, fit_together, open_models

if TYPE_CHECKING:
    from stages.device.runtime.session_cache import SessionCache
    from stages.measure.device_bench import Measured
    from stages.measure.random_models import BenchModel
    from stages.measure.records import Record
    from stages.measure.summary import BenchSummary
    from stages.measure.workload import Workload

# The one-minute load per core from which other work disturbs a measurement.
BUSY = 0.5

Count = Annotated[int, Field(ge=1)]


def _at_least_one(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes:
        raise ValueError("at least one size is needed")
    return sizes


Sizes = Annotated[tuple[Count, ...], AfterValidator(_at_least_one)]


class BenchConfig(ModelChoice):
    """What a bench runs. The defaults are the paper's: 2048 tokens, 4 tiles a batch (Figs. 7 and 8).

    `chunk` is the runtime's own if None. `tiles` are pictures of noise of so many tiles, instead of one in the shape of
    a phone's screen. `cache` loads large weights prepacked from disk, as chat does; if None, those of exported models
    only. The fields of `ModelChoice` describe random weights, for when no model is given.
    """

    chunk: Sizes | None = None
    tiles_per_batch: Sizes = (4,)
    tiles: tuple[Count, ...] = ()
    prompt_tokens: Sizes = (2048,)
    generate: int = Field(default=64, ge=0)
    runs: Count = 5
    warmup: int = Field(default=1, ge=0)
    threads: Count | None = None
    ceilings: bool = True
    cache: bool | None = None

    def workload(self) -> Workload:
        """What the device is to run."""
        from stages.device.runtime.decoder import DEFAULT_CHUNK
        from stages.measure.workload import Workload

        return Workload(
            chunks=self.chunk or (DEFAULT_CHUNK,),
            batches=self.tiles_per_batch,
            prompts=self.prompt_tokens,
            generate=self.generate,
            warmup=self.warmup,
            runs=self.runs,
            threads=self.threads,
            seed=self.seed,
        )


@dataclass(frozen=True)
class BenchPlan:
    """What a bench would run.

    `prompts` are bounded by the model's context; a preset's is known only once it is built. `tiles` and `image_tokens`
    have one number for each picture.
    """

    model: str
    policies: tuple[str, ...]
    workload: Workload
    tiles: tuple[int, ...]
    image_tokens: tuple[int, ...]
    notices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "model": self.model,
            "policies": list(self.policies),
            "workload": vars(self.workload),
            "tiles": list(self.tiles),
            "image_tokens": list(self.image_tokens),
            "notices": list(self.notices),
        }


def plan(config: BenchConfig, model: Path | None, image: Path | None) -> BenchPlan:
    """What `run` would do.

    Raises:
        UsageError: the flags contradict each other, or ask for more than the model holds.
        ArtifactError: the model is no exported one.
        ImageError: the picture cannot be read.
    """
    from stages.device.contract.device_config import read_device_config
    from stages.device.imaging.presets import imaging_preset
    from stages.measure.picture_tiles import tiling_of
    from stages.measure.workload import Fitted, fit

    if config.tiles and image is not None:
        raise UsageError(
            f"Both --image {image} and --tiles {config.tiles[0]} were given.",
            "A picture has the tiles that its size makes it have.",
            "Give one of them.",
        )
    source = config.source(model)
    fitted = Fitted(config.workload(), ())
    if source is None:
        assert config.preset is not None
        name, spec = config.name_of(config.preset), imaging_preset(config.preset).tiling
    else:
        device = read_device_config(source.path)
        name, spec = device.name, device.tiling
        fitted = fit(fitted.workload, device.decoder.max_context, device.vision.max_batch)
    tiles = config.tiles or (tiling_of(image, spec).tiles,)
    tokens = tuple(count * spec.tokens_per_tile for count in tiles)
    return BenchPlan(name, config.policy, fitted.workload, tuple(tiles), tokens, fitted.notices)


def run(
    config: BenchConfig,
    model: Path | None,
    image: Path | None = None,
    out: Path | None = None,
    force: bool = False,
    keep: Path | None = None,
) -> Events[BenchSummary]:
    """Measures load, encode, prefill and decode.

    Args:
        config: what to run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        image: the picture to encode; noise where there is none.
        out: where to write a `bench` artifact; nothing is kept without it.
        force: replace what is there.
        keep: where random weights stay for the next bench.

    Raises:
        UsageError, ArtifactError, ModelError, ImageError: see `plan`; or a graph is damaged.
    """
    from stages.measure.summary import read_summary, write_summary

    plan(config, model, image)  # Finds what is wrong before anything is built or loaded; its notices come again.
    source = config.source(model)
    if out is None:
        _, summary = yield from _measure(config, source, image, keep)
        yield Finished(summary)
        return
    parents = [] if source is None else [parent_of(source.path)]
    if image is not None:
        parents.append(parent_of(image))
    spec = ArtifactSpec("bench", "bench", config.model_dump(mode="json"), config.seed, tuple(parents))
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(read_summary(out))
        return
    with create(out, spec, force=force) as draft:
        records, summary = yield from _measure(config, source, image, keep)
        write_summary(draft.path, records, summary)
    yield Finished(summary)


def _measure(
    config: BenchConfig, source: Artifact | None, image: Path | None, keep: Path | None
) -> Generator[Event[Any], None, tuple[tuple[Record, ...], BenchSummary]]:
    from stages.device.runtime.memory import peak_rss_mb
    from stages.measure.ceilings import ceiling_process, summarise_ceilings
    from stages.measure.machine import busy_share, usable_cores
    from stages.measure.summary import summarise

    with ExitStack() as stack:
        models = yield from open_models(config, source, keep, stack)
        ceilings = stack.enter_context(ceiling_process(config.threads or usable_cores())) if config.ceilings else None
        share = busy_share()
        if share is not None and share > BUSY:
            yield Notice(
                f"Other work keeps this machine busy (load {share:.1f} per core): take ratios, not times.", "warning"
            )
        together = fit_together(models)
        if not together:
            yield Notice(
                "The models do not fit into memory together and are run one after the other: "
                "compare them with care, this machine may have changed in between.",
                "warning",
            )
        cache = _cache(config, source, keep, stack)
        found: list[Measured] = []
        peaks: list[tuple[str, float]] = []
        for group in [models] if together else [[model] for model in models]:
            found.append((yield from _run(config, group, image, ceilings, cache)))
            peaks.append((found[-1].peak_stage, peak_rss_mb()))
        records = tuple(record for measured in found for record in measured.records)
        moments = [moment for measured in found for moment in measured.ceilings]
        settings = config.model_dump(mode="json")
        tops = summarise_ceilings(moments) if moments else None
        return records, summarise(models[0].config.name, records, settings, stage_of_peak(peaks), tops)


def stage_of_peak(groups: Sequence[tuple[str, float]]) -> str:
    """At which stage memory peaked when models ran one after the other.

    Args:
        groups: at least one; the stage that each saw the peak at, and the process's peak after it. That is never reset,
            so a group that does not raise it knows nothing of it.
    """
    from stages.measure.device_bench import SAME_PEAK

    stage, reached = groups[0]
    for later, peak in groups[1:]:
        if reached < (1 - SAME_PEAK) * peak:
            stage, reached = later, peak
    return stage


def _cache(config: BenchConfig, source: Artifact | None, keep: Path | None, stack: ExitStack) -> SessionCache | None:
    """Where prepacked weights are kept: an exported model's where chat keeps them, random ones beside these."""
    from stages.device.runtime.session_cache import SessionCache, user_cache

    if not (source is not None if config.cache is None else config.cache):
        return None
    if source is not None:
        return user_cache()
    if keep is not None:
        return SessionCache(keep / PREPACKED)
    return SessionCache(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluelm-prepacked-"))))


def _run(
    config: BenchConfig, models: Sequence[BenchModel], image: Path | None, ceilings: Any, cache: SessionCache | None
) -> Generator[Event[Any], None, Measured]:
    from stages.measure.device_bench import bench_device
    from stages.measure.picture_tiles import noise_tiles, tiles_of

    device = models[0].config
    pictures = [noise_tiles(count, device, config.seed) for count in config.tiles]
    pictures = pictures or [tiles_of(image, device, config.seed)]
    for event in bench_device(models, config.workload(), pictures, ceilings, cache):
        if isinstance(event, Finished):
            return event.result
        yield event
    raise AssertionError("a bench ends with what it found")
