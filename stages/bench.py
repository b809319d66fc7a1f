"""bench: how fast an exported model loads, encodes, reads and writes on this machine.

    bluelm bench MODEL --chunk 128 --chunk 512
    bluelm bench --preset bluelm-v-3b --layers 4

A preset means random weights of its shape: what a model costs does not depend on what it has learned. Another process
writes them, so that building them does not count as memory of running them, and torch is not imported here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stages.artifacts.errors import ModelError, UsageError
from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel

if TYPE_CHECKING:
    from stages.artifacts.folder import Artifact
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


class BenchConfig(RecipeModel):
    """What a bench runs. The defaults are the paper's: 2048 tokens, chunks of 128, 4 tiles a batch (Figs. 7 and 8).

    `preset`, `layers`, `vision_layers` and `kv` describe a model of random weights, for when none is given. `layers` is
    at most how many each of language model and vision tower keeps; `vision_layers` decides for the tower alone.
    """

    chunk: Sizes = (128,)
    tiles_per_batch: Sizes = (4,)
    prompt_tokens: Count = 2048
    generate: Count = 64
    runs: Count = 5
    warmup: int = Field(default=1, ge=0)
    threads: Count | None = None
    seed: int = Field(default=0, ge=0)
    preset: str | None = None
    layers: Count | None = None
    vision_layers: Count | None = None
    kv: Literal["int8", "float32"] | None = None

    def name_of(self, model: str) -> str:
        """What the records call the model: a part of one must not be taken for the whole."""
        kept = {"layers": self.layers, "vision layers": self.vision_layers}
        parts = [f"{name}: {count}" for name, count in kept.items() if count is not None]
        return f"{model} ({', '.join(parts)})" if parts else model

    def workload(self) -> Workload:
        """What the device is to run."""
        from stages.measure.workload import Workload

        return Workload(
            chunks=self.chunk,
            batches=self.tiles_per_batch,
            prompt_tokens=self.prompt_tokens,
            generate=self.generate,
            warmup=self.warmup,
            runs=self.runs,
            threads=self.threads,
            seed=self.seed,
        )


@dataclass(frozen=True)
class BenchPlan:
    """What a bench would run.

    `prompt_tokens` is bounded by the model's context; a preset's is known only once it is built.
    """

    model: str
    workload: Workload
    tiles: int
    image_tokens: int
    notices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "model": self.model,
            "workload": vars(self.workload),
            "tiles": self.tiles,
            "image_tokens": self.image_tokens,
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
    from stages.measure.workload import fit

    source = _source(config, model)
    if source is None:
        assert config.preset is not None
        tiling = tiling_of(image, imaging_preset(config.preset).tiling)
        return BenchPlan(config.name_of(config.preset), config.workload(), tiling.tiles, tiling.tokens, ())
    device = read_device_config(source.path)
    tiling = tiling_of(image, device.tiling)
    fitted = fit(config.workload(), device.decoder.max_context, device.vision.max_batch)
    return BenchPlan(device.name, fitted.workload, tiling.tiles, tiling.tokens, fitted.notices)


def run(
    config: BenchConfig, model: Path | None, image: Path | None = None, out: Path | None = None, force: bool = False
) -> Events[BenchSummary]:
    """Measures load, encode, prefill and decode.

    Args:
        config: what to run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        image: the picture to encode; noise in the shape of a phone's screen where there is none.
        out: where to write a `bench` artifact; nothing is kept without it.
        force: replace what is there.

    Raises:
        UsageError, ArtifactError, ModelError, ImageError: see `plan`; or a graph is damaged.
    """
    from stages.measure.summary import read_summary, write_summary

    plan(config, model, image)  # Finds what is wrong before anything is built or loaded; its notices come again.
    source = _source(config, model)
    if out is None:
        _, summary = yield from _measure(config, source, image)
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
        records, summary = yield from _measure(config, source, image)
        write_summary(draft.path, records, summary)
    yield Finished(summary)


def _source(config: BenchConfig, model: Path | None) -> Artifact | None:
    """The exported model to measure, or None for a preset's random weights.

    Raises:
        UsageError: both are asked for, the shape of random weights without a preset, or no model where none is shipped.
        ArtifactError: the model is no exported one.
    """
    shape = {name: getattr(config, name) for name in ("layers", "vision_layers", "kv")}
    given = [f"--{name.replace('_', '-')}" for name, value in shape.items() if value is not None]
    if config.preset is not None:
        if model is not None:
            raise UsageError(
                f"Both the model {model} and --preset {config.preset} were given.",
                "A preset means random weights of its shape instead of a model.",
                "Give one of them.",
            )
        return None
    if given:
        raise UsageError(
            f"{given[0]} was given without --preset.",
            "An exported model is measured as it is; only random weights can be shaped.",
            "Add --preset bluelm-v-3b, or leave it out.",
        )
    from stages.device.runtime.shipped import model_or_shipped

    return open_artifact(model_or_shipped(model), "onnx")


def _measure(
    config: BenchConfig, source: Artifact | None, image: Path | None
) -> Generator[Event[Any], None, tuple[tuple[Record, ...], BenchSummary]]:
    from stages.device.contract.device_config import read_device_config
    from stages.measure.device_bench import bench_device
    from stages.measure.machine import busy_share
    from stages.measure.picture_tiles import tiles_of
    from stages.measure.summary import summarise

    with ExitStack() as stack:
        if source is None:
            yield Notice(f"Writing random weights: {config.name_of(str(config.preset))} …")
            folder = stack.enter_context(random_model(config))
        else:
            folder = source.path
        share = busy_share()
        if share is not None and share > BUSY:
            yield Notice(
                f"Other work keeps this machine busy (load {share:.1f} per core): take ratios, not times.", "warning"
            )
        device = read_device_config(folder)
        device = device.model_copy(update={"name": config.name_of(device.name)})
        tiles = tiles_of(image, device, config.seed)
        records: tuple[Record, ...] = ()
        for event in bench_device(folder, device, config.workload(), tiles):
            if isinstance(event, Finished):
                records = event.result
            else:
                yield event
        return records, summarise(device.name, records, config.model_dump(mode="json"))


@contextmanager
def random_model(config: BenchConfig) -> Iterator[Path]:
    """A temporary exported folder of random weights, written by another process; removed when the block ends.

    Raises:
        ModelError: it could not be written, most likely for want of memory or disk.
    """
    shape = config.model_dump(mode="json", include={"preset", "layers", "vision_layers", "kv", "seed"})
    code = "import sys; from stages.bench import write_random_model_here as write; write(*sys.argv[1:])"
    root = os.fspath(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="bluelm-bench-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(shape), folder],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ModelError(
                f"Random weights in the shape of {config.preset} could not be written: {reason}.",
                f"The bench runs on them; they need memory, and room in {tempfile.gettempdir()}.",
                "Make room (TMPDIR names another folder), or take fewer --layers.",
            )
        yield Path(folder)


def write_random_model_here(shape: str, folder: str) -> None:
    """What the other process of `random_model` does.

    Args:
        shape: the part of a `BenchConfig` that describes random weights, as JSON.
        folder: where to write.
    """
    from stages.workshop.graph.random_model import write_random_model
    from stages.workshop.model.presets import model_preset

    config = BenchConfig.model_validate_json(shape)
    assert config.preset is not None
    tower = model_preset(config.preset).vision_layers
    for _ in write_random_model(
        config.preset,
        Path(folder),
        layers=config.layers,
        vision_layers=config.vision_layers or min(config.layers or tower, tower),
        int8_kv=config.kv != "float32",
        seed=config.seed,
    ):
        pass
