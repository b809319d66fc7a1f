"""A training stage from end to end: data and model in, a checkpoint out. `pretrain` and `finetune` differ in recipes.

corpus ──> conversations ──> samples ─┐
source ──> outline ──> model ─────────┴──> StageTrainer ──> weights + training.json
                                                │
                                   <partial folder>/.states   (what a resume starts from; never in the artifact)
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError, raise_all
from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, Draft, open_artifact, up_to_date
from stages.artifacts.manifest import Parent, parent_of, read_manifest
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.data import Prepared, prepare, read_rows, texts_of
from stages.workshop.training.machine import Machine, check_machine
from stages.workshop.training.parameters import ParameterPlan, group, plan_parameters
from stages.workshop.training.processes import is_main, shared_draft
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.session import train
from stages.workshop.training.sources import Outline, Source
from stages.workshop.training.stream import Told

STATES = ".states"


@dataclass(frozen=True)
class StageInputs:
    """What a stage works on.

    Attributes:
        stage: `pretrain` or `finetune`.
        source: the model.
        data: a corpus.
        tiles: its pictures already tiled, or None to cut them here.
        machine: where it runs.
    """

    stage: str
    source: Source
    data: Path
    tiles: Path | None
    machine: Machine

    def spec(self, recipe: TrainRecipe) -> ArtifactSpec:
        """What is made of this: how the machine goes about it is no part of it.

        Raises:
            BluelmError: inputs that are missing or of another kind, all of them together.
        """
        wanted = [(self.data, "corpus")] + ([(self.tiles, "tiles")] if self.tiles is not None else [])
        parents: list[Parent] = []
        problems: list[BluelmError] = []
        try:
            parents += self.source.parents()
        except BluelmError as error:
            problems.append(error)
        for path, kind in wanted:
            try:
                parents.append(parent_of(open_artifact(path, kind).path))
            except BluelmError as error:
                problems.append(error)
        raise_all(problems)
        return ArtifactSpec(
            kind="checkpoint",
            stage=self.stage,
            config=recipe.model_dump(mode="json", exclude={"execution"}),
            seed=recipe.seed,
            parents=tuple(parents),
        )


@dataclass(frozen=True)
class TrainResult:
    """A trained checkpoint. Rates are None where nothing was run because it is up to date."""

    path: Path
    digest: str
    metrics: dict[str, Any]
    up_to_date: bool
    seconds_training: float | None = None
    samples_per_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "path": self.path.as_posix(),
            "digest": self.digest,
            **self.metrics,
            "up_to_date": self.up_to_date,
            "seconds_training": self.seconds_training,
            "samples_per_s": self.samples_per_s,
        }


def run_stage(recipe: TrainRecipe, inputs: StageInputs, out: Path, force: bool = False) -> Events[TrainResult]:
    """Trains and writes a checkpoint; the same call goes on from the newest state after an interruption.

    Raises:
        BluelmError: bad inputs, no memory, a loss that is no number.
    """
    check_machine(recipe, inputs.machine)
    spec = inputs.spec(recipe)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(TrainResult(out, done.digest, done.metrics, up_to_date=True))
        return
    work = yield from _prepare(recipe, inputs)
    with shared_draft(out, spec, inputs.machine, force=force) as draft:
        yield from _fill(draft, work)
    made = read_manifest(out)
    rates = {key: draft.run.get(key) for key in ("seconds_training", "samples_per_s")}
    yield Finished(TrainResult(out, made.digest, made.metrics, up_to_date=False, **rates))


@dataclass(frozen=True)
class _Work:
    """Everything that is known before the first step; whatever is wrong with it stops before anything is written."""

    recipe: TrainRecipe
    machine: Machine
    source: Source
    outline: Outline
    plans: tuple[ParameterPlan, ...]
    prepared: Prepared


def _prepare(recipe: TrainRecipe, inputs: StageInputs) -> Generator[Told, None, _Work]:
    rows = read_rows(inputs.data)
    outline = inputs.source.outline(texts_of(rows))
    plans = plan_parameters(outline.shapes(), recipe)
    prepared = yield from prepare(rows, outline, recipe, inputs.tiles)
    return _Work(recipe, inputs.machine, inputs.source, outline, plans, prepared)


def _fill(draft: Draft, work: _Work) -> Generator[Told, None, None]:
    """Trains into the draft, and writes down what came of it."""
    states = draft.path / STATES
    # The curve is written last: where it stands, the weights beside it are whole.
    curve = read_curve(draft.path) if draft.resumed else None
    if curve is None:
        curve = yield from _train(draft, work, states)
    if is_main():
        shutil.rmtree(states, ignore_errors=True)
    draft.metrics.update(
        steps=work.recipe.steps,
        loss_first=curve.first,
        loss_last=curve.last,
        parameters=sum(plan.count for plan in work.plans),
        trained_parameters=sum(plan.count for plan in work.plans if plan.trained),
        data=work.prepared.report.as_dict(),
    )


def _train(draft: Draft, work: _Work, states: Path) -> Generator[Told, None, LossCurve]:
    recipe, machine, processor = work.recipe, work.machine, work.outline.processor
    model = work.source.load(work.outline, recipe.seed)
    outcome = yield from train(model, processor, work.prepared, group(work.plans), recipe, machine, states)
    if is_main():
        save_checkpoint(model, processor, draft.path)
        outcome.curve.write(draft.path)
    draft.run.update(
        seconds_training=round(outcome.seconds, 3),
        samples_per_s=round(outcome.steps * recipe.global_batch / outcome.seconds, 2),
        device=machine.name,
        threads=machine.threads,
        processes=machine.processes,
    )
    return outcome.curve
