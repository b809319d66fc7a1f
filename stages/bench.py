"""bench: how fast exported models load, encode, read and write on this machine, beside what the machine reaches.

    bluelm bench MODEL --chunk 128 --chunk 512
    bluelm bench --preset bluelm-v-3b --layers 4 --policy mix --policy paper

A preset means random weights of its shape: what a model costs does not depend on what it has learned. Several policies
are several models, run in turns (A-B-A-B) where memory holds them all.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Event, Events
from stages.artifacts.folder import Artifact, ArtifactSpec
from stages.artifacts.manifest import parent_of
from stages.measure.bench_job import Count, JobConfig, Sizes, run_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.device.contract.device_config import DeviceConfig
    from stages.measure.device_cases import Tiles
    from stages.measure.summary import Bench, BenchSummary
    from stages.measure.workload import Workload


class BenchConfig(JobConfig):
    """What a bench runs. The defaults are the paper's: 2048 tokens, 4 tiles a batch (Figs. 7 and 8).

    `chunk` is the runtime's own if None. `tiles` are pictures of noise of so many tiles, instead of one in the shape of
    a phone's screen.
    """

    chunk: Sizes | None = None
    tiles_per_batch: Sizes = (4,)
    tiles: tuple[Count, ...] = ()
    prompt_tokens: Sizes = (2048,)
    generate: int = Field(default=64, ge=0)
    runs: Count = 5
    ceilings: bool = True

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
    from stages.measure.summary import recorded

    plan(config, model, image)  # Finds what is wrong before anything is built or loaded; its notices come again.
    source = config.source(model)
    parents = [] if source is None else [parent_of(source.path)]
    if image is not None:
        parents.append(parent_of(image))
    spec = ArtifactSpec("bench", "bench", config.model_dump(mode="json"), config.seed, tuple(parents))
    yield from recorded(spec, out, force, lambda: _measure(config, source, image, keep))


def _measure(
    config: BenchConfig, source: Artifact | None, image: Path | None, keep: Path | None
) -> Generator[Event[Any], None, Bench]:
    from stages.measure.bench_charts import speed_charts
    from stages.measure.picture_tiles import noise_tiles, tiles_of
    from stages.measure.summary import Bench, summary_of

    def pictures(device: DeviceConfig) -> Sequence[Tiles]:
        noise = [noise_tiles(count, device, config.seed) for count in config.tiles]
        return noise or [tiles_of(image, device, config.seed)]

    job = yield from run_job(config, config.workload(), source, pictures, keep)
    summary = summary_of(job, config.model_dump(mode="json"))
    return Bench(job.records, summary, speed_charts(job.records))
