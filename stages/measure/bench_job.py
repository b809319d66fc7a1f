"""What all speed benches have in common: which models, how often, with which ceilings; and running them.

Random weights are written by another process, ceilings measured by one more, so that neither counts as memory of
running a model; torch is not imported here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import Artifact
from stages.measure.random_models import PREPACKED, BenchModel, ModelChoice, fit_together, open_models

if TYPE_CHECKING:
    from stages.device.contract.device_config import DeviceConfig
    from stages.device.runtime.session_cache import SessionCache
    from stages.measure.ceilings import Ceiling
    from stages.measure.device_bench import Measured
    from stages.measure.device_cases import Action, Tiles
    from stages.measure.records import Record
    from stages.measure.workload import Workload

# The one-minute load per core from which other work disturbs a measurement.
BUSY = 0.5
# So many runs bound a median at 98 %: enough for three comparisons that hold together with 95 %.
FIGURE_RUNS = 7

Count = Annotated[int, Field(ge=1)]


def _at_least_one(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes:
        raise ValueError("at least one size is needed")
    return sizes


Sizes = Annotated[tuple[Count, ...], AfterValidator(_at_least_one)]


class JobConfig(ModelChoice):
    """How a bench runs.

    `cache` loads large weights prepacked from disk, as chat does; if None, those of exported models only. The fields of
    `ModelChoice` describe random weights, for when no model is given.
    """

    runs: Count = FIGURE_RUNS
    warmup: int = Field(default=1, ge=0)
    threads: Count | None = None
    ceilings: bool = False
    cache: bool | None = None


@dataclass(frozen=True)
class Job:
    """What was measured.

    Attributes:
        name: of the model.
        models: all that ran.
        records: of ours, with where they come from.
        peak_stage: at which stage memory peaked.
        ceilings: of the machine; None where that was left out.
        measured: of the first group of models that fits into memory: what ran when, and the peers.
    """

    name: str
    models: tuple[BenchModel, ...]
    records: tuple[Record, ...]
    peak_stage: str
    ceilings: Mapping[str, Ceiling] | None
    measured: Measured


Pictures = Callable[["DeviceConfig"], "Sequence[Tiles]"]
Bench = Callable[[Sequence[BenchModel]], Events["Measured"]]
Peers = Callable[[Sequence[BenchModel], "Workload", ExitStack], Generator[Event[Any], None, "Mapping[str, Action]"]]


def run_job(
    config: JobConfig,
    workload: Workload,
    source: Artifact | None,
    pictures: Pictures,
    keep: Path | None,
    peers: Peers | None = None,
    threads: Sequence[int | None] = (None,),
    more: Sequence[Artifact] = (),
) -> Generator[Event[Any], None, Job]:
    """Measures the models of a choice, in turns where memory holds them all.

    Args:
        config: which models, and how often.
        workload: what to run.
        source: the exported model; None for random weights.
        pictures: makes the tiles of each picture to encode, [N, 3, S, S].
        keep: where random weights stay for the next time.
        peers: makes the programs that run in turns with ours.
        threads: each model once with each of these, instead of the workload's.
        more: further exported models of the same shape, named by their folders where records name policies.

    Raises:
        UsageError, ArtifactError, ModelError, ImageError: the model or the workload cannot be run.
    """
    from functools import partial

    from stages.measure.ceilings import ceiling_process
    from stages.measure.device_bench import bench_device
    from stages.measure.machine import usable_cores

    with ExitStack() as stack:
        opened = yield from open_models(config, source, keep, stack)
        opened += [BenchModel(one.path, opened[0].config, one.path.name) for one in more]
        models = [replace(model, threads=count) for count in threads for model in opened]
        together = fit_together(models)
        reached = yield from _cautions(config.ceilings, together)
        tops = stack.enter_context(ceiling_process(config.threads or usable_cores())) if reached else None
        cache = _cache(config, source, keep, stack)
        others = {} if peers is None else (yield from peers(models, workload, stack))
        tiles = pictures(models[0].config)
        bench = partial(bench_device, asked=workload, pictures=tiles, ceilings=tops, cache=cache, peers=others)
        groups = [models] if together else [[model] for model in models]
        return (yield from _each_group(groups, bench, config.seed, None if source is None else source.digest))


def _cautions(ceilings: bool, together: bool) -> Generator[Event[Any], None, bool]:
    """Tells what makes this measurement worth less; returns whether ceilings are asked for and can be measured."""
    from importlib.util import find_spec

    from stages.measure.machine import busy_share

    reached = ceilings and find_spec("onnx") is not None
    if ceilings and not reached:
        yield Notice("What this machine reaches at most is left out: it takes onnx, which is not installed.")
    share = busy_share()
    if share is not None and share > BUSY:
        yield Notice(
            f"Other work keeps this machine busy (load {share:.1f} per core): take ratios, not times.", "warning"
        )
    if not together:
        yield Notice(
            "The models do not fit into memory together and are run one after the other: "
            "compare them with care, this machine may have changed in between.",
            "warning",
        )
    return reached


def _each_group(
    groups: Sequence[Sequence[BenchModel]], bench: Bench, seed: int | None, digest: str | None
) -> Generator[Event[Any], None, Job]:
    """One group of models after the other, each in turns; only what ran in turns shares a run."""
    from stages.device.runtime.memory import peak_rss_mb
    from stages.measure.ceilings import summarise_ceilings
    from stages.measure.records import Origin

    found: list[Measured] = []
    records: list[Record] = []
    peaks: list[tuple[str, float]] = []
    for group in groups:
        origin = Origin.here(seed, digest)
        for event in bench(group):
            if isinstance(event, Finished):
                found.append(event.result)
            else:
                yield event
        records += origin.of(found[-1].records)
        peaks.append((found[-1].peak_stage, peak_rss_mb()))
    moments = [moment for measured in found for moment in measured.ceilings]
    ceilings = summarise_ceilings(moments) if moments else None
    models = tuple(model for group in groups for model in group)
    return Job(models[0].config.name, models, tuple(records), stage_of_peak(peaks), ceilings, found[0])


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


def _cache(config: JobConfig, source: Artifact | None, keep: Path | None, stack: ExitStack) -> SessionCache | None:
    """Where prepacked weights are kept: an exported model's where chat keeps them, random ones beside these."""
    from stages.device.runtime.session_cache import SessionCache, user_cache

    if not (source is not None if config.cache is None else config.cache):
        return None
    if source is not None:
        return user_cache()
    if keep is not None:
        return SessionCache(keep / PREPACKED)
    return SessionCache(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluelm-prepacked-"))))
