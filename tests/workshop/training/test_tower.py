"""A tower's own training: its loss, its resume, and the folder that stage 1 starts from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, log_softmax
from typer.testing import CliRunner

from bluelm_cli.app import app
from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Progress
from stages.artifacts.recipes import validate
from stages.pretrain_tower import plan
from stages.workshop.corpus.rendering.glyph_page import GlyphPage
from stages.workshop.model.public.tower import read_picture_settings, read_tower_config
from stages.workshop.training.machine import Machine
from stages.workshop.training.tower_reading import GlyphSet, TowerReader, collate, reading_accuracy
from stages.workshop.training.tower_recipe import TowerRecipe
from stages.workshop.training.tower_stage import build_reader, plan_tower, run_tower, save_tower

FONTS = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
MACHINE = Machine(device="cpu", threads=1)
PIXELS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SETTINGS: dict[str, Any] = {
    "tower": {"tile_size": 32, "patch_size": 8, "layers": 1, "width": 32, "mlp": 32, "heads": 2},
    "fonts": [FONTS],
    "train_fonts": ["DejaVu Sans"],
    "heldout_fonts": ["DejaVu Serif"],
    "heldout": 8,
    "least_text": 9,
    "most_text": 16,
    "learning_rate": 1e-3,
    "steps": 6,
    "global_batch": 4,
    "dtype": "float32",
    "log_every": 1,
    "execution": {"save_every": 2},
}


@pytest.fixture
def recipe() -> Callable[..., TowerRecipe]:
    return lambda **changes: validate(TowerRecipe, {**SETTINGS, **changes}, "test")


def drain(events: Any, until: int | None = None) -> list[Any]:
    """All events, or those up to a step, after which the run is closed as by Ctrl-C."""
    seen = []
    for event in events:
        seen.append(event)
        if until is not None and isinstance(event, Progress) and event.done >= until:
            events.close()
            break
    return seen


def test_behind_the_first_empty_slot_nothing_is_asked() -> None:
    slots = np.array([[3, 5, 0], [0, 0, 0], [7, 0, 0], [2, 2, 2]])
    batch = collate([GlyphPage(np.zeros((3, 16, 16), np.uint8), slots)])
    assert batch["labels"].tolist() == [[-100, 3, 5, 0, 0, -100, -100, 7, 0, -100, 2, 2, 2]]


def test_the_loss_is_the_mean_over_what_is_asked(recipe: Callable[..., TowerRecipe], tmp_path: Path) -> None:
    """The first step's loss, against log-probabilities picked by hand from the untrained tower's answers."""
    made = recipe(steps=1, warmup_steps=0)
    drain(run_tower(made, MACHINE, tmp_path / "tower"))
    told = json.loads((tmp_path / "tower" / "training.json").read_text())
    pages = GlyphSet(made.look(made.train_fonts), "train", made.seed, 4)
    batch = collate([pages[number] for number in range(4)])
    reader = build_reader(made)
    with torch.no_grad():
        found = log_softmax(reader(batch["tiles"].float() / 127.5 - 1), -1).flatten(0, 2)
    picked = [
        -found[place, label] for place, label in enumerate(batch["labels"][:, 1:].flatten().tolist()) if label >= 0
    ]
    assert told["losses"][0] == pytest.approx(float(torch.stack(picked).mean()), rel=1e-5)


def test_accuracy_counts_characters_patches_and_empty_ones() -> None:
    class Oracle:
        """Says 1 in every slot."""

        slots = 2

        def eval(self) -> None: ...

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[torch.ones(len(pixels), 4, 2, dtype=torch.long)]

    slots = np.array([[1, 1], [1, 2], [0, 0], [2, 0]])
    page = GlyphPage(np.zeros((3, 16, 16), np.uint8), slots)
    found = reading_accuracy(Oracle(), [page], PIXELS)  # type: ignore[arg-type]
    assert found == {"characters": 3 / 5, "patches": 1 / 3, "empty": 0.0}


def test_an_interrupted_run_ends_with_the_same_bytes(recipe: Callable[..., TowerRecipe], tmp_path: Path) -> None:
    made = recipe()
    drain(run_tower(made, MACHINE, tmp_path / "whole"))
    drain(run_tower(made, MACHINE, tmp_path / "halved"), until=3)
    assert not (tmp_path / "halved").exists()
    events = drain(run_tower(made, MACHINE, tmp_path / "halved"))
    assert any("Going on after step" in str(event) for event in events)
    for name in ("model.safetensors", "training.json", "artifact.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halved" / name).read_bytes()
    assert "up to date" in str(drain(run_tower(made, MACHINE, tmp_path / "whole")))


def test_it_learns(recipe: Callable[..., TowerRecipe], tmp_path: Path) -> None:
    made = recipe(steps=90, learning_rate=3e-3, optimizer={"matrices": "muon"})
    drain(run_tower(made, MACHINE, tmp_path / "tower"))
    metrics = json.loads((tmp_path / "tower" / "artifact.json").read_text())["metrics"]
    assert metrics["loss_last"] < 0.8 * metrics["loss_first"]
    assert metrics["reading"]["empty"] > 0.6


def test_the_folder_is_a_siglip(recipe: Callable[..., TowerRecipe], tmp_path: Path) -> None:
    """What is read back from it is the tower that was saved, to float16."""
    reader: TowerReader = build_reader(recipe())
    before = {name: value.clone() for name, value in reader.vision_tower.state_dict().items()}
    save_tower(reader, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {name.removeprefix("vision_model."): value.shape for name, value in stored.items()} == {
        name.removeprefix("vision_model."): value.shape for name, value in before.items()
    }
    for name, value in stored.items():
        torch.testing.assert_close(value.float(), before[name], rtol=1e-3, atol=1e-6)
    assert read_tower_config(tmp_path).hidden_size == 32
    assert read_picture_settings(tmp_path).mean == (0.5, 0.5, 0.5)


def test_a_tower_goes_on_from_another(recipe: Callable[..., TowerRecipe], tmp_path: Path) -> None:
    """Its first loss is that of the weights that were saved; other characters or shapes are refused."""
    drain(run_tower(recipe(steps=8), MACHINE, tmp_path / "first"))
    further = recipe(steps=1, warmup_steps=0, seed=5)
    drain(run_tower(further, MACHINE, tmp_path / "second", start=tmp_path / "first"))
    pages = GlyphSet(further.look(further.train_fonts), "train", further.seed, 4)
    batch = collate([pages[number] for number in range(4)])
    with torch.no_grad():
        found = build_reader(further, tmp_path / "first")(batch["tiles"].float() / 127.5 - 1)
    loss = cross_entropy(found.flatten(0, 2), batch["labels"][:, 1:].flatten())
    told = json.loads((tmp_path / "second" / "training.json").read_text())
    assert told["losses"][0] == pytest.approx(float(loss), rel=1e-5)
    other = recipe(scripts=["latin", "greek"])
    with pytest.raises(BluelmError, match="its scripts is"):
        drain(run_tower(other, MACHINE, tmp_path / "third", start=tmp_path / "first"))
    with pytest.raises(BluelmError, match="its scripts is"):
        plan(other, tmp_path / "first")


def test_the_plan_has_every_parameter_once(recipe: Callable[..., TowerRecipe]) -> None:
    groups = plan_tower(recipe(optimizer={"matrices": "muon"}))
    assert sum(group.count for group in groups) == sum(value.numel() for value in build_reader(recipe()).parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tower": {**SETTINGS["tower"], "patch_size": 7}}, "not a multiple of patch_size"),
        ({"tower": {**SETTINGS["tower"], "heads": 3}}, "not a multiple of heads"),
        ({"scripts": ["greek"]}, "scripts lacks latin"),
        ({"scripts": ["latin", "runes"]}, "There is no script 'runes'"),
        ({"heldout_fonts": ["DejaVu Sans"]}, "in train_fonts and in heldout_fonts"),
        ({"least_text": 20}, "least_text is 20"),
    ],
)
def test_bad_recipes_are_refused(recipe: Callable[..., TowerRecipe], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BluelmError, match=words):
        recipe(**changes)


def test_the_command_names_missing_fonts(tmp_path: Path) -> None:
    file = tmp_path / "tower.yaml"
    file.write_text(json.dumps({**SETTINGS, "train_fonts": ["Helvetica of Nowhere"]}), encoding="utf-8")
    result = CliRunner().invoke(app, ["pretrain-tower", "--recipe", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0 and not (tmp_path / "out").exists()
    with pytest.raises(BluelmError, match="No face of Helvetica of Nowhere"):
        raise result.exception  # type: ignore[misc]
