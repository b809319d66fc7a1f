"""A tower's own training from end to end: fonts in, a SigLIP folder out that `pretrain --vision` takes.

fonts ──> pages ─┐
recipe ──> tower ┴──> TowerTrainer ──> model.safetensors, preprocessor_config.json, training.json
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import SiglipVisionConfig

from stages.artifacts.digest import digest_file
from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, Draft, create, up_to_date
from stages.artifacts.manifest import Parent, read_manifest
from stages.workshop.corpus.rendering.faces import Face
from stages.workshop.model.checkpoint import quiet
from stages.workshop.model.public.tower import write_picture_settings
from stages.workshop.training.curve import LossCurve, read_curve
from stages.workshop.training.feed import Feed
from stages.workshop.training.history import HISTORY_FILE
from stages.workshop.training.machine import Machine, arguments, check_machine, samples_per_device
from stages.workshop.training.monitor import Monitor
from stages.workshop.training.order import BatchOrder, Steps
from stages.workshop.training.parameters import GroupPlan, group, plan_parameters
from stages.workshop.training.plot import PLOT_FILE, draw_history
from stages.workshop.training.session import Session, train
from stages.workshop.training.stage import STATES, TrainResult
from stages.workshop.training.stream import Told
from stages.workshop.training.tower_reading import GlyphSet, TowerReader, TowerTrainer, collate, reading_accuracy
from stages.workshop.training.tower_recipe import TowerRecipe
from stages.workshop.training.trainer import StageTrainer

# SigLIP's own.
_PIXELS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class TowerSession(Session):
    """What a tower's run works with."""

    model: TowerReader
    recipe: TowerRecipe

    def trainer(self, monitor: Monitor, stop: threading.Event) -> StageTrainer:
        recipe, machine = self.recipe, self.machine
        samples = samples_per_device(recipe, machine)
        plan = Steps(recipe.steps, recipe.accumulation, samples, machine.rank, machine.processes)
        look = recipe.look(recipe.train_fonts)
        # No page is seen twice.
        pages = GlyphSet(look, "train", recipe.seed, recipe.steps * recipe.global_batch)
        order = BatchOrder([1] * len(pages), plan, recipe.seed)
        return TowerTrainer(
            model=self.model,
            args=arguments(recipe, machine, self.states),
            feed=Feed(pages, collate, order, order),
            groups=self.groups,
            optimizer_recipe=recipe.optimizer,
            pixels=_PIXELS,
            execution=recipe.execution,
            monitor=monitor,
            evaluation=None,
            stop=stop,
        )

    def report(self, trainer: StageTrainer) -> None:
        """Pages are drawn, so nothing can become of them."""


def run_tower(recipe: TowerRecipe, machine: Machine, out: Path, force: bool = False) -> Events[TrainResult]:
    """Trains a tower; the same call goes on from the newest state after an interruption.

    Raises:
        BluelmError: missing fonts, no memory, a loss that is no number.
    """
    check_machine(recipe, machine)
    spec = _spec(recipe)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(TrainResult(out, done.digest, done.metrics, up_to_date=True))
        return
    with create(out, spec, force=force, resumable=True) as draft:
        yield from _fill(draft, recipe, machine)
    made = read_manifest(out)
    yield Finished(TrainResult(out, made.digest, made.metrics, up_to_date=False, run=dict(draft.run)))


def build_reader(recipe: TowerRecipe) -> TowerReader:
    """A tower and its head with random weights; the global random state is left as it was."""
    config = SiglipVisionConfig(**recipe.tower.as_siglip())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return TowerReader(config, len(recipe.look(recipe.train_fonts).alphabet), recipe.slots)


def plan_tower(recipe: TowerRecipe) -> tuple[GroupPlan, ...]:
    """The optimizer's groups; no weights are drawn.

    Raises:
        RecipeError: missing fonts, or a pattern that matches nothing.
    """
    with torch.device("meta"):
        reader = TowerReader(
            SiglipVisionConfig(**recipe.tower.as_siglip()), len(recipe.look(recipe.train_fonts).alphabet), recipe.slots
        )
    return group(plan_parameters({name: tuple(value.shape) for name, value in reader.named_parameters()}, recipe))


def _spec(recipe: TowerRecipe) -> ArtifactSpec:
    """What is made: fonts count by what is in their files, not by where these lie."""
    faces = (*recipe.look(recipe.train_fonts).faces, *recipe.look(recipe.heldout_fonts).faces)
    return ArtifactSpec(
        kind="tower",
        stage="pretrain-tower",
        config=recipe.model_dump(mode="json", exclude={"execution", "fonts"}),
        seed=recipe.seed,
        parents=_font_files(faces),
    )


def _font_files(faces: Sequence[Face]) -> tuple[Parent, ...]:
    files = {Path(face.path).name: face.path for face in faces}
    return tuple(Parent(path=name, digest=digest_file(Path(files[name]))) for name in sorted(files))


def _fill(draft: Draft, recipe: TowerRecipe, machine: Machine) -> Generator[Told, None, None]:
    states = draft.path / STATES
    draft.outside |= {HISTORY_FILE, PLOT_FILE}
    curve = read_curve(draft.path) if draft.resumed else None
    if curve is None:
        curve, metrics = yield from _train(draft, recipe, machine, states)
        draft.metrics.update(metrics)
    shutil.rmtree(states, ignore_errors=True)
    draft.metrics.update(steps=recipe.steps, loss_first=curve.first, loss_last=curve.last)


def _train(
    draft: Draft, recipe: TowerRecipe, machine: Machine, states: Path
) -> Generator[Told, None, tuple[LossCurve, dict[str, Any]]]:
    reader, groups = build_reader(recipe), plan_tower(recipe)
    session = TowerSession(
        model=reader, groups=groups, recipe=recipe, machine=machine, states=states, folder=draft.path
    )
    outcome = yield from train(session)
    heldout = GlyphSet(recipe.look(recipe.heldout_fonts), "heldout", recipe.seed, recipe.heldout)
    pages = [heldout[number] for number in range(len(heldout))]
    metrics = {
        "parameters": reader.vision_tower.num_parameters(),
        "reading": {name: round(value, 4) for name, value in reading_accuracy(reader, pages, _PIXELS).items()},
    }
    save_tower(reader, draft.path)
    draw_history(outcome.history, draft.path / PLOT_FILE)
    outcome.curve.write(draft.path)
    draft.run.update(outcome.figures(recipe), device=machine.name, threads=machine.threads)
    return outcome.curve, metrics


def save_tower(reader: TowerReader, folder: Path) -> None:
    """Writes the tower as a SigLIP folder in float16: half the bytes, and training starts from float32 anyway."""
    with quiet():
        reader.vision_tower.to(torch.float16).save_pretrained(folder)
    write_picture_settings(folder, reader.config.image_size, *_PIXELS, "bicubic")
