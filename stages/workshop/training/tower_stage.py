"""A tower's own training from end to end: fonts in, a SigLIP folder out that `pretrain --vision` takes.

fonts ──> pages ─┐
recipe ──> tower ┴──> TowerTrainer ──> model.safetensors, preprocessor_config.json, training.json
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig
from transformers.utils import SAFE_WEIGHTS_NAME

from stages.artifacts.atomic_file import write_atomically
from stages.artifacts.digest import digest_file
from stages.artifacts.errors import UsageError
from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, Draft, create, open_artifact, up_to_date
from stages.artifacts.manifest import Parent, parent_of, read_manifest
from stages.workshop.corpus.rendering.faces import Face
from stages.workshop.corpus.rendering.glyph_text import alphabet
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
from stages.workshop.training.short_attention import short_attention
from stages.workshop.training.stage import STATES, TrainResult
from stages.workshop.training.stream import Told
from stages.workshop.training.tower_reading import GlyphSet, TowerReader, TowerTrainer, collate, reading_accuracy
from stages.workshop.training.tower_recipe import TowerRecipe
from stages.workshop.training.trainer import StageTrainer

# What was found out about the tower, for the manifest.
READING_FILE = "reading.json"
HEAD_FILE = Path("reader") / "head.safetensors"
# What must be the same for weights to be taken over.
_SHAPE = ("tower", "slots", "scripts")
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

    def attention(self) -> AbstractContextManager[Any]:
        """The faster one for so few patches."""
        return short_attention(self.model, self.machine.name, self.recipe.dtype)

    def report(self, trainer: StageTrainer) -> None:
        """Pages are drawn, so nothing can become of them."""


def run_tower(
    recipe: TowerRecipe, machine: Machine, out: Path, force: bool = False, start: Path | None = None
) -> Events[TrainResult]:
    """Trains a tower; the same call goes on from the newest state after an interruption.

    Args:
        recipe: its shape, its pages, its training.
        machine: where it runs.
        out: the artifact folder.
        force: replace an artifact that differs.
        start: a tower of the same shape and scripts to start from; random weights if None.

    Raises:
        BluelmError: missing fonts, another shape at `start`, no memory, a loss that is no number.
    """
    check_machine(recipe, machine)
    check_start(recipe, start)
    spec = _spec(recipe, start)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(TrainResult(out, done.digest, done.metrics, up_to_date=True))
        return
    with create(out, spec, force=force, resumable=True) as draft:
        yield from _fill(draft, recipe, machine, start)
    made = read_manifest(out)
    yield Finished(TrainResult(out, made.digest, made.metrics, up_to_date=False, run=dict(draft.run)))


def build_reader(recipe: TowerRecipe, start: Path | None = None) -> TowerReader:
    """A tower and its head, random or as they were saved (a head that was not is random); no global state changes."""
    config = SiglipVisionConfig(**recipe.tower.as_siglip())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        reader = TowerReader(config, len(alphabet(recipe.scripts)), recipe.slots)
    if start is not None:
        with torch.no_grad():
            reader.vision_tower.load_state_dict(load_file(start / SAFE_WEIGHTS_NAME))
            if (start / HEAD_FILE).is_file():
                reader.reader.load_state_dict(load_file(start / HEAD_FILE))
    return reader


def check_start(recipe: TowerRecipe, start: Path | None) -> None:
    """Whether a tower can go on with this recipe.

    Raises:
        BluelmError: it is no tower that learned to read, or of another shape, or reads other characters.
    """
    if start is None:
        return
    told = read_manifest(open_artifact(start, "tower").path).config
    wanted = recipe.model_dump(mode="json", include=set(_SHAPE))
    for key, value in wanted.items():
        if told.get(key) != value:
            raise UsageError(
                f"{start}: its {key} is {told.get(key)}, the recipe's {value}.",
                "Its weights would not fit, or mean other characters.",
                f"Take over its {key}, or start from random weights.",
            )


def plan_tower(recipe: TowerRecipe) -> tuple[GroupPlan, ...]:
    """The optimizer's groups; no weights are drawn.

    Raises:
        RecipeError: missing fonts, or a pattern that matches nothing.
    """
    with torch.device("meta"):
        reader = TowerReader(
            SiglipVisionConfig(**recipe.tower.as_siglip()), len(alphabet(recipe.scripts)), recipe.slots
        )
    return group(plan_parameters({name: tuple(value.shape) for name, value in reader.named_parameters()}, recipe))


def _spec(recipe: TowerRecipe, start: Path | None) -> ArtifactSpec:
    """What is made: fonts count by what is in their files, not by where these lie."""
    families = (*recipe.look(recipe.train_fonts).families, *recipe.look(recipe.heldout_fonts).families)
    return ArtifactSpec(
        kind="tower",
        stage="pretrain-tower",
        config=recipe.model_dump(mode="json", exclude={"execution", "fonts"}),
        seed=recipe.seed,
        parents=(*_font_files(chain.from_iterable(families)), *([] if start is None else [parent_of(start)])),
    )


def _font_files(faces: Iterable[Face]) -> tuple[Parent, ...]:
    files = {Path(face.path).name: face.path for face in faces}
    return tuple(Parent(path=name, digest=digest_file(Path(files[name]))) for name in sorted(files))


def _fill(draft: Draft, recipe: TowerRecipe, machine: Machine, start: Path | None) -> Generator[Told, None, None]:
    draft.outside |= {HISTORY_FILE, PLOT_FILE}
    curve = read_curve(draft.path) if draft.resumed else None
    if curve is None:
        curve = yield from _train(draft, recipe, machine, start)
    # From the file also where it was just written: a run that was stopped behind its training has nothing else.
    draft.metrics.update(json.loads((draft.path / READING_FILE).read_text(encoding="utf-8")))
    shutil.rmtree(draft.path / STATES, ignore_errors=True)
    draft.metrics.update(steps=recipe.steps, loss_first=curve.first, loss_last=curve.last)


def _train(draft: Draft, recipe: TowerRecipe, machine: Machine, start: Path | None) -> Generator[Told, None, LossCurve]:
    reader = build_reader(recipe, start)
    session = TowerSession(
        model=reader,
        groups=plan_tower(recipe),
        recipe=recipe,
        machine=machine,
        states=draft.path / STATES,
        folder=draft.path,
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
    write_atomically(draft.path / READING_FILE, json.dumps(metrics) + "\n")
    outcome.curve.write(draft.path)  # last: where it stands, all else is whole
    draft.run.update(outcome.figures(recipe), device=machine.name, threads=machine.threads)
    return outcome.curve


def save_tower(reader: TowerReader, folder: Path) -> None:
    """Writes the tower as a SigLIP folder in float16: half the bytes, and training starts from float32 anyway.

    Its head lies in a folder of its own, where only `build_reader` looks for it.
    """
    with quiet():
        reader.vision_tower.to(torch.float16).save_pretrained(folder)
    (folder / HEAD_FILE).parent.mkdir(exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in reader.reader.state_dict().items()}, folder / HEAD_FILE
    )
    write_picture_settings(folder, reader.config.image_size, *_PIXELS, "bicubic")
