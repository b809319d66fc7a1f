"""NaN, infinite gradients and spikes stop training before they touch a weight: with a state, a checkpoint, advice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.artifacts.errors import ModelError
from stages.artifacts.events import result_of
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.training import stage, trainer
from stages.workshop.training.divergence import find_divergence
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage
from stages.workshop.training.states import newest_state

Make = Callable[..., TrainRecipe]


@pytest.fixture
def inputs(checkpoint: Path, corpus: Path, machine: Any) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, factor: float) -> None:
    """The loss of one step, counted from 1, comes out multiplied."""
    original = trainer.StageTrainer.compute_loss

    def compute(self: trainer.StageTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        return loss * factor if self.state.global_step == step - 1 else loss

    monkeypatch.setattr(trainer.StageTrainer, "compute_loss", compute)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "usual", "factor", "said"),
    [
        (2.0, 1.0, 2.0, 10.0, None),
        (math.nan, 1.0, 2.0, 10.0, "The loss became nan"),
        (math.inf, 1.0, None, None, "The loss became inf"),
        (2.0, math.nan, None, None, "The gradient's norm became nan"),
        (21.0, 1.0, 2.0, 10.0, "The loss jumped to 21, 10.5 times what was usual,"),
        (20.0, 1.0, 2.0, 10.0, None),
        (21.0, 1.0, 2.0, None, None),
        (21.0, 1.0, None, 10.0, None),
        (0.9, 1.0, 0.001, 10.0, None),
        (1.1, 1.0, 0.001, 10.0, "The loss jumped to 1.1, 11.0 times what was usual,"),
    ],
)
def test_what_counts_as_divergence(
    loss: float, grad_norm: float, usual: float | None, factor: float | None, said: str | None
) -> None:
    assert find_divergence(loss, grad_norm, usual, factor) == said


def test_nan_stops_before_the_step_with_the_weights_before_it(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 1 to 4 are taken; what is left is a state and a checkpoint of exactly those."""
    spoil(monkeypatch, step=5, factor=math.nan)
    recipe = micro_recipe(steps=8, schedule="constant_with_warmup", execution={"save_every": None})
    with pytest.raises(ModelError, match="The loss became nan at step 5") as caught:
        result_of(run_stage(recipe, inputs, tmp_path / "out"))
    monkeypatch.undo()
    rescued = tmp_path / "out-before-step-5"
    assert str(rescued) in caught.value.fix
    assert "lower learning_rate" in caught.value.fix
    assert not (tmp_path / "out").exists()
    found = newest_state(tmp_path / ".out.partial" / stage.STATES)
    assert found is not None
    assert found.step == 4
    four = micro_recipe(steps=4, schedule="constant_with_warmup")
    result_of(run_stage(four, inputs, tmp_path / "four"))
    expected, kept = (load_file(folder / "model.safetensors") for folder in (tmp_path / "four", rescued))
    assert all(torch.equal(kept[name], weight) for name, weight in expected.items())
    load_checkpoint(rescued)
    # What spoilt the step is mended: the same command goes on to the same end as a run that never met it.
    result_of(run_stage(recipe, inputs, tmp_path / "out"))
    result_of(run_stage(recipe, inputs, tmp_path / "whole"))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_spike_stops_and_can_be_passed(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, step=20, factor=30.0)
    with pytest.raises(ModelError, match="at step 20") as caught:
        result_of(run_stage(micro_recipe(steps=21), inputs, tmp_path / "out"))
    assert "jumped to" in caught.value.what
    assert "spike_factor=null" in caught.value.fix
    # How the machine goes about it is no input: the run goes on from its state.
    recipe = micro_recipe(steps=21, execution={"spike_factor": None})
    events = [event for event in run_stage(recipe, inputs, tmp_path / "out") if hasattr(event, "text")]
    assert events[0].text == "Going on after step 19 of 21."


def test_in_the_first_step_there_is_nothing_to_keep(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, step=1, factor=math.inf)
    with pytest.raises(ModelError, match="at step 1") as caught:
        result_of(run_stage(micro_recipe(), inputs, tmp_path / "out"))
    assert caught.value.fix.startswith("Lower learning_rate")
    assert not list(tmp_path.glob("out-before-*"))
