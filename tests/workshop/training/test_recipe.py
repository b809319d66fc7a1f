"""The paper's tables as recipes, and recipes that cannot work."""

from __future__ import annotations

import pytest

from stages.artifacts.errors import RecipeError
from stages.artifacts.recipes import load_config
from stages.device.imaging.spec import TilingSpec
from stages.workshop.training.recipe import FinetuneRecipe, PretrainRecipe


def test_pretrain_recipe_is_table_7() -> None:
    recipe = load_config(PretrainRecipe, "pretrain.yaml")
    assert [(line.parameters, line.learning_rate, line.layer_decay) for line in recipe.trained] == [
        ("multi_modal_projector.*", None, 1.0)
    ]
    assert (recipe.learning_rate, recipe.schedule) == (0.001, "cosine")
    assert (recipe.steps, recipe.warmup_steps) == (3434, 34)
    assert (recipe.global_batch, recipe.accumulation) == (720, 1)
    assert (recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.epsilon) == (0.9, 0.98, 0.000001)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.matrices) == (0.05, "adamw")
    assert (recipe.dtype, recipe.sequence_length) == ("bfloat16", 4096)
    assert (recipe.tiling.max_cols, recipe.tiling.max_rows, recipe.tiling.max_tiles) == (1, 1, None)


def test_finetune_recipe_is_table_8() -> None:
    recipe = load_config(FinetuneRecipe, "finetune.yaml")
    assert [(line.parameters, line.learning_rate, line.layer_decay) for line in recipe.trained] == [
        ("vision_tower.*", None, 0.9),
        ("multi_modal_projector.*", None, 1.0),
        ("language_model.*", None, 1.0),
    ]
    assert (recipe.learning_rate, recipe.schedule) == (0.0001, "cosine")
    assert (recipe.steps, recipe.warmup_steps) == (131_000, 1310)
    assert (recipe.global_batch, recipe.accumulation) == (5760, 8)
    assert (recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.epsilon) == (0.9, 0.98, 0.000001)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.matrices) == (0.05, "adamw")
    assert (recipe.dtype, recipe.sequence_length) == ("bfloat16", 4096)
    assert (recipe.tiling.rule, recipe.tiling.alpha) == ("relaxed", 0.1)
    # 4:4 of 384-pixel tiles is 16 tiles, 1536×1536.
    assert (recipe.tiling.max_cols, recipe.tiling.max_rows, recipe.tiling.max_tiles) == (4, 4, None)


@pytest.mark.parametrize(
    ("kind", "tiny", "paper"),
    [
        (PretrainRecipe, "tiny/pretrain.yaml", "pretrain.yaml"),
        (FinetuneRecipe, "tiny/finetune.yaml", "finetune.yaml"),
    ],
)
def test_tiny_recipes_extend_the_papers(kind: type[PretrainRecipe], tiny: str, paper: str) -> None:
    small, full = load_config(kind, tiny), load_config(kind, paper)
    same = {"beta1", "beta2", "epsilon", "weight_decay"}
    assert small.optimizer.model_dump(include=same) == full.optimizer.model_dump(include=same)
    assert small.schedule == full.schedule
    assert small.dtype == "float32"
    assert small.steps < full.steps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=0", "greater than or equal to 1"),
        ("stepps=5", "unknown key 'stepps'"),
        ("optimizer.beta3=0.9", "unknown key 'optimizer.beta3'"),
        ("warmup_steps=3434", "warmup_steps is 3434, but there are only 3434 steps"),
        ("accumulation=7", "global_batch 720 is not a multiple of accumulation 7"),
        ("learning_rate=.nan", "learning_rate"),
        ("learning_rate=.inf", "learning_rate"),
        ("learning_rate=0", "greater than 0"),
        ("dtype=float16", "bfloat16"),
        ("trained=[]", "trained"),
        ("trained=[{parameters: vision_tower.*, layer_decay: 0}]", "layer_decay"),
    ],
)
def test_a_recipe_that_cannot_work_is_named(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_config(PretrainRecipe, "pretrain.yaml", sets=[change])
    assert message in str(caught.value)


def test_typo_names_the_nearest_key() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'warmup_steps'"):
        load_config(PretrainRecipe, "pretrain.yaml", sets=["warmup_step=3"])


def test_tiling_keeps_the_models_tiles() -> None:
    model = TilingSpec(tile_size=112, tokens_per_tile=16, rule="llava-next")
    spec = load_config(FinetuneRecipe, "finetune.yaml").tiling.spec(model)
    assert spec == TilingSpec(tile_size=112, tokens_per_tile=16, rule="relaxed", alpha=0.1, max_cols=4, max_rows=4)
