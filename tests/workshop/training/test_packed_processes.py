"""Two processes under torchrun (gloo): packed steps are shared evenly, a stream gives each its own rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.artifacts.events import result_of
from stages.workshop.training.machine import Machine
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage

Make = Callable[..., TrainRecipe]
WORKER = Path(__file__).with_name("worker.py")


def train_alone(recipe: TrainRecipe, checkpoint: Path, corpus: Path, out: Path) -> None:
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, Machine("cpu", 1))
    result_of(run_stage(recipe, inputs, out))


def losses(out: Path) -> Any:
    return json.loads((out / "training.json").read_text())["losses"]


@pytest.mark.slow
def test_two_packed_processes_train_as_one_without_packing(
    torchrun: Callable[..., Any], micro_recipe: Make, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = micro_recipe(steps=5, global_batch=8, accumulation=2, log_every=1, packing=True)
    train_alone(recipe.model_copy(update={"packing": False}), checkpoint, corpus, tmp_path / "one")
    torchrun(WORKER, tmp_path / "two", checkpoint, corpus, recipe.model_dump_json())
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-5)
    weights = load_file(tmp_path / "two/model.safetensors")
    for name, weight in load_file(tmp_path / "one/model.safetensors").items():
        # A key's bias gets no gradient but rounding noise.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.slow
def test_two_processes_share_the_rows_of_a_stream(
    torchrun: Callable[..., Any], micro_recipe: Make, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    """One step over twelve rows: each process finds six of them, and together they learn what one does in memory."""
    shared = {"steps": 1, "warmup_steps": 0, "global_batch": 12}
    train_alone(micro_recipe(**shared), checkpoint, corpus, tmp_path / "one")
    streamed = micro_recipe(**shared, streaming=True, packing=True)
    torchrun(WORKER, tmp_path / "two", checkpoint, corpus, streamed.model_dump_json())
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = ((tmp_path / name / "data_report.jsonl").read_text() for name in ("one", "two"))
    assert two == one
    assert json.loads(two)["totals"]["samples"] == 12
