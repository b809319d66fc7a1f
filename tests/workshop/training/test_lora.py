"""Stages with LoRA: what learns, what states hold, what is written, and that nothing of it is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from stages import adopt
from stages.artifacts.errors import ArtifactError, RecipeError, UsageError
from stages.artifacts.events import Notice, result_of
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import load_config
from stages.workshop.model.checkpoint import load_model
from stages.workshop.training import stage, trainer
from stages.workshop.training.parameters import plan_parameters
from stages.workshop.training.recipe import FinetuneRecipe, TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage

Make = Callable[..., TrainRecipe]
LORA: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture
def inputs(checkpoint: Path, corpus: Path, machine: Any) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


def run(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> TrainResult:
    return result_of(run_stage(recipe, inputs, out))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_merged_checkpoint_equals_the_base_with_its_adapter(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    trained = [{"parameters": "multi_modal_projector.*"}, {"parameters": "language_model.*"}]
    run(micro_recipe(lora=LORA, trained=trained), inputs, tmp_path / "out")
    artifact = open_artifact(tmp_path / "out", "checkpoint")
    assert artifact.manifest is not None
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= artifact.manifest.files.keys()
    before, after = weights(checkpoint), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        learned = name.startswith("multi_modal_projector.") or (name.startswith("language_model.") and "_proj." in name)
        assert torch.equal(weight, after[name]) != learned, name
    # The other path: the base, the projector of this stage, and peft's own model with active factors.
    base = load_model(checkpoint)
    projector = {name: weight for name, weight in after.items() if name.startswith("multi_modal_projector.")}
    base.load_state_dict(projector, strict=False)
    active = PeftModel.from_pretrained(base, str(tmp_path / "out/adapter")).eval()
    merged = load_model(tmp_path / "out")
    ids = torch.arange(4, 64).reshape(2, 30)
    with torch.no_grad():
        expected, found = active(input_ids=ids).logits, merged(input_ids=ids).logits
        start = load_model(checkpoint)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(start, expected, atol=1e-3)


def test_apart_and_merged_later_equals_merged_at_once(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    run(micro_recipe(lora=LORA), inputs, tmp_path / "merged")
    run(micro_recipe(lora={**LORA, "merge": False}), inputs, tmp_path / "apart")
    before, apart = weights(checkpoint), weights(tmp_path / "apart")
    for name, weight in before.items():
        assert torch.equal(weight, apart[name]) or not name.startswith("language_model."), name
    # No other command takes it for a checkpoint, which it is not without its adapter.
    with pytest.raises(ArtifactError, match="is of kind adapter") as caught:
        FromCheckpoint(tmp_path / "apart").parents()
    assert "bluelm adopt" in caught.value.fix
    plan = adopt.plan(adopt.AdoptConfig(), tmp_path / "apart")
    assert "LoRA" in plan.layout
    done = result_of(adopt.run(adopt.AdoptConfig(), tmp_path / "apart", tmp_path / "later"))
    later, merged = weights(tmp_path / "later"), weights(tmp_path / "merged")
    assert done.parameters == sum(weight.numel() for weight in merged.values())
    assert later.keys() == merged.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(later[name], weight, rtol=1e-6, atol=1e-7, msg=name)
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json", "config.json"):
        assert (tmp_path / "later" / name).read_text() == (tmp_path / "merged" / name).read_text()
    with pytest.raises(UsageError, match="grid of tiles and its chat template stay"):
        adopt.plan(adopt.AdoptConfig(max_cols=2), tmp_path / "apart")


def test_resumed_equals_uninterrupted_and_states_hold_what_learns(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose random numbers must go on where they stopped."""
    trained = [{"parameters": "multi_modal_projector.*"}, {"parameters": "language_model.*"}]
    recipe = micro_recipe(steps=6, lora=LORA, trained=trained)
    run(recipe, inputs, tmp_path / "whole")

    class KilledError(Exception):
        pass

    original = trainer.StageTrainer.training_step

    def die(self: trainer.StageTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 4:
            raise KilledError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.StageTrainer, "training_step", die)
        with pytest.raises(KilledError):
            run(recipe, inputs, tmp_path / "cut")
    state = tmp_path / ".cut.partial" / stage.STATES / "checkpoint-4"
    with safe_open(state / "model.safetensors", framework="pt") as opened:
        held = set(opened.keys())
    assert all(".lora_" in name or name.startswith("multi_modal_projector.") for name in held)
    # 2 layers × 7 Linears × 2 factors, and LayerNorm and two Linears of the projector.
    assert len(held) == 28 + 6
    events = list(run_stage(recipe, inputs, tmp_path / "cut"))
    assert Notice("Going on after step 4 of 6.") in events
    for name in ("model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    manifests = [open_artifact(tmp_path / name, "checkpoint").digest for name in ("whole", "cut")]
    assert manifests[0] == manifests[1]


def test_the_optimizer_holds_the_factors_and_nothing_of_the_frozen(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, tuple[float, bool]] = {}
    original = trainer.StageTrainer.train

    def look(self: trainer.StageTrainer, *args: Any, **kwargs: Any) -> Any:
        done = original(self, *args, **kwargs)
        assert self.optimizer is not None
        rates = {id(p): group["initial_lr"] for group in self.optimizer.param_groups for p in group["params"]}
        for name, parameter in self.model.named_parameters():
            held[name] = (rates.get(id(parameter), 0.0), parameter in self.optimizer.state)
        return done

    monkeypatch.setattr(trainer.StageTrainer, "train", look)
    trained = [
        {"parameters": "language_model.lm_head.*", "learning_rate": 1e-4},
        {"parameters": "language_model.*"},
        {"parameters": "multi_modal_projector.*"},
    ]
    run(micro_recipe(lora={**LORA, "learning_rate": 5e-3}, trained=trained), inputs, tmp_path / "out")
    for name, found in held.items():
        expected = 0.0
        if ".lora_" in name:
            expected = 5e-3
        elif name.startswith("multi_modal_projector."):
            expected = 3e-3
        elif name == "language_model.lm_head.weight":
            expected = 1e-4
        assert found == (expected, expected > 0), name
    assert sum(".lora_" in name for name in held) == 28


def test_the_head_may_learn_beside_the_factors(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    trained = [{"parameters": "language_model.lm_head.*"}, {"parameters": "language_model.*"}]
    run(micro_recipe(lora={**LORA, "targets": ["v_proj"]}, trained=trained), inputs, tmp_path / "out")
    before, after = weights(checkpoint), weights(tmp_path / "out")
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert moved == {
        "language_model.lm_head.weight",
        "language_model.model.layers.0.self_attn.v_proj.weight",
        "language_model.model.layers.1.self_attn.v_proj.weight",
    }


def test_the_papers_stage_2_with_lora(checkpoint: Path) -> None:
    """Table 8's lines mean the factors: tower and projector learn as before, the language model's own weights not."""
    recipe = load_config(FinetuneRecipe, "finetune.yaml", sets=["lora.rank=8", "lora.alpha=16"])
    source = FromCheckpoint(checkpoint)
    plans = plan_parameters(source.outline(()).shapes(recipe), recipe)
    assert recipe.lora is not None
    assert recipe.lora.merge
    for plan in plans:
        if ".lora_" in plan.name:
            assert (plan.learning_rate, plan.weight_decay, plan.method) == (1e-4, 0.05, "adamw")
            assert 8 in plan.shape
        else:
            assert plan.trained == (plan.part != "language_model"), plan.name
    muon = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"matrices": "muon"})})
    factors = [plan for plan in plan_parameters(source.outline(()).shapes(muon), muon) if ".lora_" in plan.name]
    assert {plan.method for plan in factors} == {"adamw"}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["lora.targets=[q_proj, query]"], "lora.targets: the language model's layers have no query"),
        (["lora.targets=[out_proj]"], "lora.targets: the language model's layers have no out_proj"),
        (["lora.targets=[]"], "lora.targets"),
        (["lora.rank=0"], "lora.rank"),
        (["lora.dropout=1"], "lora.dropout"),
        (["lora.rang=4"], "Did you mean 'rank'"),
    ],
)
def test_bad_lora_recipes(sets: list[str], message: str, checkpoint: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe = load_config(FinetuneRecipe, "finetune.yaml", sets=sets)
        FromCheckpoint(checkpoint).outline(()).shapes(recipe)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_learn_the_same_factors(
    sharding: str,
    torchrun: Callable[..., Any],
    checkpoint: Path,
    corpus: Path,
    micro_recipe: Make,
    inputs: StageInputs,
    tmp_path: Path,
) -> None:
    """Also where no process holds a whole factor: what is merged then is gathered first."""
    values = {"steps": 4, "lora.rank": 4, "learning_rate": 3e-3, "dtype": "float32", "sequence_length": 128}
    sizes = {"global_batch": 4, "accumulation": 1, "warmup_steps": 1, "tiling.max_cols": 2, "tiling.max_rows": 1}
    sets = [f"{key}={value}" for key, value in {**values, **sizes, "log_every": 4}.items()]
    run(load_config(FinetuneRecipe, "finetune.yaml", sets=sets), inputs, tmp_path / "one")
    options = ["--data", corpus, "--out", tmp_path / "two", "--device", "cpu", "--threads", "1"]
    told = [word for change in (*sets, f"execution.sharding={sharding}") for word in ("--set", change)]
    torchrun("-m", "bluelm_cli", "finetune", checkpoint, *options, *told)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
        assert one.keys() == two.keys()
        for key, weight in one.items():
            if not key.endswith("k_proj.bias"):
                torch.testing.assert_close(two[key], weight, rtol=1e-4, atol=1e-6, msg=key)
