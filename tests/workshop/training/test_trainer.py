"""The trainer against formulas written out: schedule, optimizer, precision; and its cost over a bare loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.errors import BluelmError
from stages.workshop.training import machine as machines
from stages.workshop.training.data import Prepared, prepare, read_rows
from stages.workshop.training.machine import Machine, check_machine, samples_per_device
from stages.workshop.training.parameters import group, plan_parameters
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.session import train
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage_session import StageSession
from stages.workshop.training.trainer import StageTrainer

Make = Callable[..., TrainRecipe]


def drain(events: Any) -> Any:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


class Bench:
    """A micro model with its data, trained under a probe."""

    def __init__(self, checkpoint: Path, corpus: Path, machine: Machine, states: Path) -> None:
        self.source = FromCheckpoint(checkpoint)
        self.outline = self.source.outline(())
        self.corpus, self.machine, self.states = corpus, machine, states

    def run(self, recipe: TrainRecipe) -> Any:
        prepared: Prepared = drain(prepare(read_rows(self.corpus), self.outline, recipe, None))
        model = self.source.load(self.outline, 0)
        groups = group(plan_parameters({name: tuple(p.shape) for name, p in model.named_parameters()}, recipe))
        session = StageSession(
            model=model,
            groups=groups,
            recipe=recipe,
            machine=self.machine,
            states=self.states,
            processor=self.outline.processor,
            prepared=prepared,
        )
        self.outcome = drain(train(session))
        return model


@pytest.fixture
def bench(checkpoint: Path, corpus: Path, machine: Machine, tmp_path: Path) -> Bench:
    return Bench(checkpoint, corpus, machine, tmp_path / "states")


def test_learning_rates_follow_the_cosine_of_every_group(
    bench: Bench, micro_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[float, float]] = []
    original = StageTrainer.training_step

    def probe(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert self.optimizer is not None
        seen.append({found["initial_lr"]: found["lr"] for found in self.optimizer.param_groups})
        return original(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "training_step", probe)
    lines = [{"parameters": "vision_tower.*", "layer_decay": 0.5}, {"parameters": "*"}]
    bench.run(micro_recipe(trained=lines, learning_rate=8e-3, steps=12, warmup_steps=3, execution={"save_every": None}))
    assert len(seen) == 12
    # Two layers: embeddings 0.5², layer 0 0.5, everything else 1.
    for step, rates in enumerate(seen):
        factor = step / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / (12 - 3)))
        assert rates == {peak: pytest.approx(peak * factor, rel=1e-9) for peak in (2e-3, 4e-3, 8e-3)}


def test_a_step_is_adamw_with_the_papers_constants(
    bench: Bench, micro_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step that moves, worked by hand: with bias correction AdamW's first update is g / (|g| + ε)."""
    before = {name: p.detach().clone() for name, p in bench.source.load(bench.outline, 0).named_parameters()}
    gradients: dict[str, torch.Tensor] = {}
    original = StageTrainer.training_step

    def probe(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = original(self, *args, **kwargs)
        gradients.update({name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None})
        return loss

    monkeypatch.setattr(StageTrainer, "training_step", probe)
    optimizer = {"weight_decay": 0.05, "epsilon": 1e-6, "max_grad_norm": 0}
    recipe = micro_recipe(schedule="constant_with_warmup", warmup_steps=0, steps=1, optimizer=optimizer)
    model = bench.run(recipe)
    rate = recipe.learning_rate
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        decay = 0.05 if parameter.ndim > 1 else 0.0
        expected = before[name] * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-6)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-7, msg=name)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(
    bench: Bench, micro_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: set[torch.dtype] = set()
    original = StageTrainer.create_optimizer

    def probe(self: StageTrainer, model: Any = None) -> torch.optim.Optimizer:
        self.model.multi_modal_projector.linear_1.register_forward_hook(lambda *call: kinds.add(call[2].dtype))
        return original(self, model)

    monkeypatch.setattr(StageTrainer, "create_optimizer", probe)
    model = bench.run(micro_recipe(dtype="bfloat16", steps=2))
    assert kinds == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("checkpointing", "forwards"), [(False, 1), (True, 2)])
def test_activation_checkpointing_runs_every_layer_again(
    checkpointing: bool, forwards: int, bench: Bench, micro_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    original = StageTrainer.create_optimizer

    def probe(self: StageTrainer, model: Any = None) -> torch.optim.Optimizer:
        for name, module in self.model.named_modules():
            if name.endswith(".mlp"):
                module.register_forward_pre_hook(lambda *call, name=name: calls.append(name))
        return original(self, model)

    monkeypatch.setattr(StageTrainer, "create_optimizer", probe)
    execution = {"activation_checkpointing": checkpointing, "save_every": None}
    bench.run(micro_recipe(steps=1, warmup_steps=0, execution=execution))
    assert len(set(calls)) == 4
    assert {name: calls.count(name) for name in calls} == dict.fromkeys(calls, forwards)


def test_training_leaves_the_model_as_it_was_but_for_its_weights(bench: Bench, micro_recipe: Make) -> None:
    model = bench.run(micro_recipe(steps=2, trained=[{"parameters": "multi_modal_projector.*"}]))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert "use_cache" not in model.config.__dict__


@pytest.mark.parametrize(("processes", "expected"), [(1, 90), (2, 45), (3, 30)])
def test_samples_per_device_follow_from_the_global_batch(
    processes: int, expected: int, micro_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert samples_per_device(micro_recipe(global_batch=720, accumulation=8), Machine()) == expected


def test_everything_wrong_with_the_machine_is_said_at_once(micro_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "7")
    with pytest.raises(BluelmError) as caught:
        check_machine(micro_recipe(global_batch=720), Machine(device="tpu"))
    device, batch = caught.value.problems
    assert device.what == "--device is 'tpu'."
    assert batch.what == "global_batch is 720, accumulation × processes is 1 × 7 = 7."
    assert "multiple of 7" in batch.fix


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:x", "cpu:3", ""])
def test_devices_that_are_not_there(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BluelmError, match="--device is"):
        machines.Machine(device=device).name  # noqa: B018
