"""The memory of a step, per part of the model and per device, against sums written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.workshop.training.machine import Machine
from stages.workshop.training.parameters import plan_parameters
from stages.workshop.training.plan import plan_stage
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs

Make = Callable[..., TrainRecipe]


def test_shares_divide_what_is_kept_and_gather_a_layer_at_a_time(
    micro_recipe: Make, checkpoint: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, Machine("cpu", 1))
    whole = plan_stage(micro_recipe(), inputs).memory.as_dict()
    shared = plan_stage(micro_recipe(execution={"sharding": "fsdp2"}), inputs).memory.as_dict()
    for held in ("weights", "gradients", "optimizer"):
        # One rounding a part.
        assert 4 * shared[held] == pytest.approx(whole[held], abs=12)
    assert shared["activations_estimate"] == whole["activations_estimate"]
    recipe = micro_recipe()
    plans = plan_parameters(FromCheckpoint(checkpoint).outline(()).shapes(recipe), recipe)
    layers = {
        f"{tower}.layers.{number}.": sum(plan.count for plan in plans if f"{tower}.layers.{number}." in plan.name)
        for tower in ("encoder", "model")
        for number in range(2)
    }
    assert all(layers.values())
    outside = sum(plan.count for plan in plans) - sum(layers.values())
    assert shared["gathered_estimate"] == 4 * (outside + 2 * max(layers.values()))
    assert "gathered_estimate" not in whole
    assert shared["total_estimate"] == sum(value for name, value in shared.items() if name != "total_estimate")
