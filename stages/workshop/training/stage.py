"""A training stage from end to end: data and model in, a checkpoint out. `pretrain` and `finetune` differ in recipes.

corpus ──> conversations ──> samples ─┐
source ──> outline ──> model ─────────┴──> StageTrainer ──> weights + training.json
                                                │
                                   <partial folder>/.states   (what a resume starts from; never in the artifact)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError, raise_all
from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, Draft, open_artifact, up_to_date
from stages.artifacts.manifest import Parent, parent_of, read_manifest
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import RowSource, parent_of_rows
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.data import Prepared, prepare, read_rows, texts_of
from stages.workshop.training.divergence import DivergedError
from stages.workshop.training.evaluation import read_heldout
from stages.workshop.training.features import (
    StoredFeatures,
    open_features,
    rounding_notice,
    with_tower,
    without_tower,
)
from stages.workshop.training.history import HISTORY_FILE
from stages.workshop.training.lora import artifact_kind, attach, settle
from stages.workshop.training.machine import Machine, check_machine
from stages.workshop.training.monitor import open_board
from stages.workshop.training.parameters import ParameterPlan, group, plan_parameters
from stages.workshop.training.plot import PLOT_FILE, draw_history
from stages.workshop.training.processes import is_main, shared_draft
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sample_report import read_totals
from stages.workshop.training.session import train
from stages.workshop.training.sources import Outline, Source
from stages.workshop.training.stage_session import StageSession
from stages.workshop.training.stream import Told
from stages.workshop.training.streamed import Streamed, first_rows, open_stream

STATES = ".states"
# What run.json says of a run beside where it ran.
RUN_FIGURES = ("seconds_training", "samples_per_s", "tokens_per_s", "learned_tokens_per_s", "padding", "eval_loss")


@dataclass(frozen=True)
class StageInputs:
    """What a stage works on.

    Attributes:
        stage: `pretrain` or `finetune`.
        source: the model.
        data: a corpus, or anything that `open_rows` reads.
        tiles: its pictures already tiled, or None to cut them here.
        machine: where it runs.
        heldout: a corpus to evaluate on while training, or None; it changes nothing that is trained.
        images: where pictures lie that `data` names, if not beside it.
        data_format: the format of `data`; seen in its content where None.
        features: what the frozen tower makes of its pictures (`vit-features`), read in their place; or None.
    """

    stage: str
    source: Source
    data: Path
    tiles: Path | None
    machine: Machine
    heldout: Path | None = None
    images: Path | None = None
    data_format: str | None = None
    features: Path | None = None

    def rows(self) -> RowSource:
        """The conversations; none is read yet.

        Raises:
            BluelmError: there is nothing that holds any.
        """
        return open_rows(self.data, self.data_format, self.images)

    def stored_features(
        self, outline: Outline, recipe: TrainRecipe, plans: Sequence[ParameterPlan]
    ) -> StoredFeatures | None:
        """The features that stand in the pictures' place, or None. Raises: as `open_features`."""
        if self.features is None:
            return None
        return open_features(self.features, self.source, outline, recipe, plans)

    def spec(self, recipe: TrainRecipe) -> ArtifactSpec:
        """What is made of this: how the machine goes about it is no part of it.

        Raises:
            BluelmError: inputs that are missing or of another kind, all of them together.
        """
        wanted: list[Callable[[], Sequence[Parent]]] = [self.source.parents, lambda: (parent_of_rows(self.rows()),)]
        if self.tiles is not None:
            tiles = self.tiles
            wanted.append(lambda: (parent_of(open_artifact(tiles, "tiles").path),))
        if self.features is not None:
            features = self.features
            wanted.append(lambda: (parent_of(open_artifact(features, "vit-features").path),))
        parents: list[Parent] = []
        problems: list[BluelmError] = []
        for find in wanted:
            try:
                parents += find()
            except BluelmError as error:
                problems.append(error)
        raise_all(problems)
        return ArtifactSpec(
            kind=artifact_kind(recipe),
            stage=self.stage,
            config=recipe.model_dump(mode="json", exclude={"execution"}),
            seed=recipe.seed,
            parents=tuple(parents),
        )


@dataclass(frozen=True)
class TrainResult:
    """A trained checkpoint; what its run was like is None where nothing was run because it is up to date."""

    path: Path
    digest: str
    metrics: dict[str, Any]
    up_to_date: bool
    run: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "path": self.path.as_posix(),
            "digest": self.digest,
            **self.metrics,
            "up_to_date": self.up_to_date,
            **{key: self.run.get(key) for key in RUN_FIGURES},
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
    work = yield from prepare_stage(recipe, inputs)
    with shared_draft(out, spec, inputs.machine, force=force) as draft:
        yield from _fill(draft, out, work)
    made = read_manifest(out)
    yield Finished(TrainResult(out, made.digest, made.metrics, up_to_date=False, run=dict(draft.run)))


@dataclass(frozen=True)
class StageWork:
    """Everything that is known before the first step; whatever is wrong with it stops before anything is written."""

    recipe: TrainRecipe
    machine: Machine
    source: Source
    outline: Outline
    plans: tuple[ParameterPlan, ...]
    prepared: Prepared | Streamed
    heldout: Prepared | None
    features: StoredFeatures | None = None

    def session(self, states: Path, folder: Path | None = None) -> StageSession:
        """A run of it, its weights loaded.

        Args:
            states: where its states are.
            folder: where `training.csv` is written; None writes none.
        """
        model = self.source.load(self.outline, self.recipe.seed)
        attach(model, self.recipe)
        if self.features is not None:
            without_tower(model)
        return StageSession(
            model=model,
            groups=group(self.plans),
            recipe=self.recipe,
            machine=self.machine,
            states=states,
            folder=folder,
            processor=self.outline.processor,
            prepared=self.prepared,
            heldout=self.heldout,
        )


def prepare_stage(recipe: TrainRecipe, inputs: StageInputs) -> Generator[Told, None, StageWork]:
    """Reads and checks everything that is needed before the first step."""
    if is_main():
        open_board(recipe.execution.tensorboard)
    source = inputs.rows()
    rows = source if recipe.streaming else read_rows(source)
    outline = inputs.source.outline(texts_of(first_rows(rows) if isinstance(rows, RowSource) else rows))
    plans = plan_parameters(outline.shapes(recipe), recipe)
    features = inputs.stored_features(outline, recipe, plans)
    if features is not None:
        yield from rounding_notice(features)
    pictures = features or inputs.tiles
    prepared: Prepared | Streamed
    if isinstance(rows, RowSource):
        prepared = open_stream(rows, outline, recipe, pictures)
    else:
        prepared = yield from prepare(rows, outline, recipe, pictures)
    heldout = None
    if inputs.heldout is not None:
        heldout = yield from prepare(read_heldout(inputs.heldout), outline, recipe, features)
    return StageWork(recipe, inputs.machine, inputs.source, outline, plans, prepared, heldout, features)


def _fill(draft: Draft, out: Path, work: StageWork) -> Generator[Told, None, None]:
    """Trains into the draft, and writes down what came of it."""
    states = draft.path / STATES
    # Both tell times, which no two runs share.
    draft.outside |= {HISTORY_FILE, PLOT_FILE}
    # The curve is written last: where it stands, the weights beside it are whole.
    curve = read_curve(draft.path) if draft.resumed else None
    if curve is None:
        curve = yield from _train(draft, out, work, states)
    if is_main():
        shutil.rmtree(states, ignore_errors=True)
    draft.metrics.update(
        steps=work.recipe.steps,
        loss_first=curve.first,
        loss_last=curve.last,
        parameters=sum(plan.count for plan in work.plans),
        trained_parameters=sum(plan.count for plan in work.plans if plan.trained),
        data=read_totals(draft.path) if is_main() else {},
    )


def _train(draft: Draft, out: Path, work: StageWork, states: Path) -> Generator[Told, None, LossCurve]:
    session = work.session(states, draft.path)
    try:
        outcome = yield from train(session)
    except DivergedError as error:
        folder = out.with_name(f"{out.name}-before-step-{error.step}")
        if error.step > 1 and is_main():
            with_tower(session.model, work.source)
            weights = settle(session.model, folder, error.weights)
            save_checkpoint(session.model, session.processor, folder, weights)
        raise error.advised(folder) from error
    if is_main():
        with_tower(session.model, work.source)
        apart = artifact_kind(work.recipe) == "adapter"
        weights = settle(session.model, draft.path, outcome.weights, apart=apart)
        save_checkpoint(session.model, session.processor, draft.path, weights)
        draw_history(outcome.history, draft.path / PLOT_FILE)
        outcome.curve.write(draft.path)
    draft.run.update(
        outcome.figures(work.recipe),
        device=work.machine.name,
        threads=work.machine.threads,
        processes=work.machine.processes,
    )
    return outcome.curve
