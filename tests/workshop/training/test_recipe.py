"""The paper's tables as recipes, and recipes that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.artifacts.errors import RecipeError
from stages.artifacts.recipes import load_config, shipped_recipe
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.training.recipe import FinetuneRecipe, PretrainRecipe, TrainRecipe

# Tables 7 and 8 of the paper, row by row: what the row says, our key, its value in stage 1 and in stage 2.
EVERYTHING = ["vision_tower.*", "multi_modal_projector.*", "language_model.*"]
TABLES: tuple[tuple[str, str, object, object], ...] = (
    ("trained: projector; everything", "trained", ["multi_modal_projector.*"], EVERYTHING),
    ("LLM sequence length", "sequence_length", 4096, 4096),
    ("dynamic resolution: none, 384×384; up to 16 tiles, 1536×1536", "tiling.max_cols", 1, 4),
    ("dynamic resolution: none, 384×384; up to 16 tiles, 1536×1536", "tiling.max_rows", 1, 4),
    ("dynamic resolution: none, 384×384; up to 16 tiles, 1536×1536", "tiling.max_tiles", None, None),
    ("optimizer AdamW", "optimizer.matrices", "adamw", "adamw"),
    ("β1", "optimizer.beta1", 0.9, 0.9),
    ("β2", "optimizer.beta2", 0.98, 0.98),
    ("ε", "optimizer.epsilon", 1e-6, 1e-6),
    ("peak LR", "learning_rate", 1e-3, 1e-4),
    ("schedule", "schedule", "cosine", "cosine"),
    ("weight decay", "optimizer.weight_decay", 0.05, 0.05),
    ("ViT layer-wise LR decay", "layer_decay", [1.0], [0.9, 1.0, 1.0]),
    ("training steps", "steps", 3434, 131_000),
    ("warm-up steps", "warmup_steps", 34, 1310),
    ("global batch", "global_batch", 720, 5760),
    ("gradient accumulation", "accumulation", 1, 8),
    ("numerical precision", "dtype", "bfloat16", "bfloat16"),
)
# What the tables take for granted: the paper's own tiling rule, no rate but the peak, whole weights, all parameters.
SILENT: tuple[tuple[str, object], ...] = (("tiling.rule", "relaxed"), ("tiling.alpha", 0.1), ("lora", None))
STAGES = ((PretrainRecipe, "pretrain.yaml"), (FinetuneRecipe, "finetune.yaml"))


def value_of(recipe: TrainRecipe, key: str) -> object:
    """A value by its dotted key; the list of what is trained by its two columns."""
    if key == "trained":
        return [line.parameters for line in recipe.trained]
    if key == "layer_decay":
        return [line.layer_decay for line in recipe.trained]
    found: object = recipe.model_dump()
    for word in key.split("."):
        assert isinstance(found, dict)
        found = found[word]
    return found


@pytest.mark.parametrize("extended", [False, True], ids=["shipped", "extended"])
@pytest.mark.parametrize("stage", [0, 1], ids=["Table 7", "Table 8"])
def test_shipped_recipes_resolve_to_the_tables(stage: int, extended: bool, tmp_path: Path) -> None:
    """Every row, in the shipped recipe and in one that extends it and changes nothing."""
    kind, name = STAGES[stage]
    recipe: Path | str = name
    if extended:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(f"extends: {shipped_recipe(name)}\nlog_every: 3\n")
    resolved = load_config(kind, recipe)
    found = {key: value_of(resolved, key) for _, key, *_ in TABLES}
    assert found == {key: values[stage] for _, key, *values in TABLES}
    assert all(line.learning_rate is None for line in resolved.trained)
    for key, value in SILENT:
        assert value_of(resolved, key) == value, key
    assert resolved.log_every == (3 if extended else 10)


def test_sixteen_tiles_are_the_papers_largest_picture() -> None:
    tiling = load_config(FinetuneRecipe, "finetune.yaml").tiling.spec(TilingSpec(tile_size=384, tokens_per_tile=196))
    found = plan_tiling(Size(1536, 1536), tiling)
    assert (found.grid.cols * found.grid.rows, found.canvas) == (16, Size(1536, 1536))
    # Stage 1 sees every picture as one tile.
    first = load_config(PretrainRecipe, "pretrain.yaml").tiling.spec(TilingSpec(tile_size=384, tokens_per_tile=196))
    assert plan_tiling(Size(1536, 1536), first).tiles == 1


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
