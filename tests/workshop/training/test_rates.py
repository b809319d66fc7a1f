"""Every parameter's learning rate, one by one: at the real shape, and in the optimizer that a stage steps with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.events import result_of
from stages.artifacts.recipes import load_config
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import preset_config
from stages.workshop.training.optimizers import make_optimizer
from stages.workshop.training.parameters import ParameterPlan, group, plan_parameters
from stages.workshop.training.recipe import FinetuneRecipe, PretrainRecipe, TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage
from stages.workshop.training.trainer import StageTrainer

PEAK, DECAY = 1e-4, 0.9


def depth_rate(name: str, layers: int, peak: float) -> float:
    """Layer i of n, counted from 1, learns at 0.9^(n-i) of the peak; the embeddings below as a layer 0."""
    if not name.startswith("vision_tower."):
        return peak
    words = name.split(".")
    if words[1] == "embeddings":
        return peak * DECAY**layers
    if words[1:3] == ["encoder", "layers"]:
        return peak * DECAY ** (layers - (int(words[3]) + 1))
    assert words[1] == "post_layernorm"
    return peak


@pytest.fixture(scope="module")
def real() -> BlueLMVForConditionalGeneration:
    """so400m/14-384 and MiniCPM-2B's shape: 3 billion parameters, none of them allocated."""
    with torch.device("meta"):
        return BlueLMVForConditionalGeneration(preset_config("bluelm-v-3b"))


def planned(model: torch.nn.Module, recipe: TrainRecipe) -> dict[str, ParameterPlan]:
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    return {plan.name: plan for plan in plan_parameters(shapes, recipe)}


def test_stage_2_at_the_real_shape(real: BlueLMVForConditionalGeneration) -> None:
    recipe = load_config(FinetuneRecipe, "finetune.yaml")
    plans = planned(real, recipe)
    parameters = dict(real.named_parameters())
    assert plans.keys() == parameters.keys()
    optimizer = make_optimizer(parameters, group(plans.values()), recipe.optimizer)
    rates = {id(value): options["lr"] for options in optimizer.param_groups for value in options["params"]}
    decays = {id(value): options["weight_decay"] for options in optimizer.param_groups for value in options["params"]}
    assert len(rates) == len(parameters) == sum(len(options["params"]) for options in optimizer.param_groups)
    for name, value in parameters.items():
        expected = depth_rate(name, 27, PEAK)
        assert plans[name].learning_rate == pytest.approx(expected, rel=1e-12), name
        assert rates[id(value)] == plans[name].learning_rate, name
        assert decays[id(value)] == (0.05 if value.ndim > 1 else 0.0), name
    # 28 depths of the tower and the peak, decayed and not; the top of the tower shares the peak's groups.
    assert len(optimizer.param_groups) == 2 * 28
    tower = {plan.learning_rate for name, plan in plans.items() if name.startswith("vision_tower.")}
    assert min(tower) == plans["vision_tower.embeddings.patch_embedding.weight"].learning_rate
    assert max(tower) == PEAK
    assert {options["betas"] for options in optimizer.param_groups} == {(0.9, 0.98)}
    assert {options["eps"] for options in optimizer.param_groups} == {1e-6}


def test_stage_1_at_the_real_shape(real: BlueLMVForConditionalGeneration) -> None:
    recipe = load_config(PretrainRecipe, "pretrain.yaml")
    plans = planned(real, recipe)
    optimizer = make_optimizer(dict(real.named_parameters()), group(plans.values()), recipe.optimizer)
    held = {id(value) for options in optimizer.param_groups for value in options["params"]}
    for name, value in real.named_parameters():
        learns = name.startswith("multi_modal_projector.")
        assert plans[name].learning_rate == (1e-3 if learns else 0.0), name
        assert (id(value) in held) == learns, name


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, bool, bool]]:
    """Parameter → its group's peak rate (0: in no group), whether the optimizer has a state of it, requires_grad."""
    found: dict[str, tuple[float, bool, bool]] = {}
    original = StageTrainer.train

    def look(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        done = original(self, *args, **kwargs)
        assert self.optimizer is not None
        groups = self.optimizer.param_groups
        rates = {id(value): options["initial_lr"] for options in groups for value in options["params"]}
        for name, value in self.model.named_parameters():
            found[name] = (rates.get(id(value), 0.0), value in self.optimizer.state, value.requires_grad)
        assert len(rates) == sum(rate > 0 for rate, _, _ in found.values())
        assert len(self.optimizer.state) == len(rates)
        return done

    monkeypatch.setattr(StageTrainer, "train", look)
    return found


def test_the_optimizer_that_steps_in_stage_2(
    stepped: dict[str, tuple[float, bool, bool]],
    checkpoint: Path,
    corpus: Path,
    machine: Any,
    micro_recipe: Callable[..., TrainRecipe],
    tmp_path: Path,
) -> None:
    lines = [{"parameters": "vision_tower.*", "layer_decay": DECAY}, {"parameters": "*"}]
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)
    result_of(run_stage(micro_recipe(trained=lines, learning_rate=1e-3, steps=2), inputs, tmp_path / "out"))
    assert len(stepped) > 50
    for name, (rate, state, learns) in stepped.items():
        assert rate == pytest.approx(depth_rate(name, 2, 1e-3), rel=1e-12), name
        assert state, name
        assert learns, name


def test_frozen_parts_have_no_optimizer_state(
    stepped: dict[str, tuple[float, bool, bool]],
    checkpoint: Path,
    corpus: Path,
    machine: Any,
    micro_recipe: Callable[..., TrainRecipe],
    tmp_path: Path,
) -> None:
    recipe = micro_recipe(trained=[{"parameters": "multi_modal_projector.*"}], steps=2)
    inputs = StageInputs("pretrain", FromCheckpoint(checkpoint), corpus, None, machine)
    result_of(run_stage(recipe, inputs, tmp_path / "out"))
    for name, found in stepped.items():
        learns = name.startswith("multi_modal_projector.")
        assert found == (3e-3 if learns else 0.0, learns, learns), name
