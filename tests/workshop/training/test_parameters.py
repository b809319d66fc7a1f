"""What learns and how fast, against tables worked by hand."""

from __future__ import annotations

import pytest

from stages.artifacts.errors import BluelmError, RecipeError
from stages.artifacts.recipes import load_config
from stages.workshop.training.parameters import count_by_part, group, plan_parameters
from stages.workshop.training.recipe import FinetuneRecipe, PretrainRecipe, TrainRecipe

# A tower of 3 layers, a connector, a language model of one layer: name → shape.
SHAPES = {
    "vision_tower.embeddings.patch_embedding.weight": (8, 3, 4, 4),
    "vision_tower.embeddings.patch_embedding.bias": (8,),
    "vision_tower.embeddings.position_embedding.weight": (16, 8),
    "vision_tower.encoder.layers.0.mlp.fc1.weight": (16, 8),
    "vision_tower.encoder.layers.1.layer_norm1.weight": (8,),
    "vision_tower.encoder.layers.1.mlp.fc1.weight": (16, 8),
    "vision_tower.encoder.layers.2.mlp.fc1.bias": (16,),
    "vision_tower.encoder.layers.2.mlp.fc1.weight": (16, 8),
    "vision_tower.post_layernorm.weight": (8,),
    "multi_modal_projector.norm.weight": (32,),
    "multi_modal_projector.linear_1.weight": (4, 32),
    "language_model.model.embed_tokens.weight": (10, 4),
    "language_model.model.layers.0.self_attn.q_proj.weight": (4, 4),
    "language_model.model.norm.weight": (4,),
}


def recipe(*sets: str) -> TrainRecipe:
    return load_config(FinetuneRecipe, "finetune.yaml", sets=["learning_rate=1e-4", *sets])


def test_stage_2_groups_equal_the_hand_worked_table() -> None:
    plans = {plan.name: (plan.learning_rate, plan.weight_decay) for plan in plan_parameters(SHAPES, recipe())}
    # peak · 0.9^(layers above): embeddings 0.9³, layer 0 0.9², layer 1 0.9, layer 2 and post_layernorm 1.
    expected = {
        "vision_tower.embeddings.patch_embedding.weight": (7.29e-5, 0.05),
        "vision_tower.embeddings.patch_embedding.bias": (7.29e-5, 0.0),
        "vision_tower.embeddings.position_embedding.weight": (7.29e-5, 0.05),
        "vision_tower.encoder.layers.0.mlp.fc1.weight": (8.1e-5, 0.05),
        "vision_tower.encoder.layers.1.layer_norm1.weight": (9e-5, 0.0),
        "vision_tower.encoder.layers.1.mlp.fc1.weight": (9e-5, 0.05),
        "vision_tower.encoder.layers.2.mlp.fc1.bias": (1e-4, 0.0),
        "vision_tower.encoder.layers.2.mlp.fc1.weight": (1e-4, 0.05),
        "vision_tower.post_layernorm.weight": (1e-4, 0.0),
        "multi_modal_projector.norm.weight": (1e-4, 0.0),
        "multi_modal_projector.linear_1.weight": (1e-4, 0.05),
        "language_model.model.embed_tokens.weight": (1e-4, 0.05),
        "language_model.model.layers.0.self_attn.q_proj.weight": (1e-4, 0.05),
        "language_model.model.norm.weight": (1e-4, 0.0),
    }
    assert plans.keys() == expected.keys()
    for name, (rate, decay) in expected.items():
        assert plans[name] == (pytest.approx(rate, rel=1e-12), decay), name


def test_a_27_layer_tower_spans_the_published_decay() -> None:
    shapes = {f"vision_tower.encoder.layers.{layer}.mlp.fc1.weight": (2, 2) for layer in range(27)}
    shapes |= {
        "vision_tower.embeddings.patch_embedding.weight": (2, 2),
        "multi_modal_projector.linear_1.weight": (2, 2),
    }
    plans = plan_parameters(shapes | {"language_model.lm_head.weight": (2, 2)}, recipe())
    rates = {plan.name: plan.learning_rate for plan in plans}
    assert rates["vision_tower.embeddings.patch_embedding.weight"] == pytest.approx(5.8149737e-6, rel=1e-6)
    assert rates["vision_tower.encoder.layers.0.mlp.fc1.weight"] == pytest.approx(6.4610819e-6, rel=1e-6)
    assert rates["vision_tower.encoder.layers.26.mlp.fc1.weight"] == 1e-4


def test_stage_1_trains_the_connector_only() -> None:
    plans = plan_parameters(SHAPES, load_config(PretrainRecipe, "pretrain.yaml"))
    assert {plan.name for plan in plans if plan.trained} == {
        name for name in SHAPES if name.startswith("multi_modal_projector.")
    }
    assert count_by_part(plans) == {
        "vision_tower": {"parameters": 8 * 48 + 8 + 128 + 128 + 8 + 128 + 16 + 128 + 8, "trained": 0},
        "multi_modal_projector": {"parameters": 160, "trained": 160},
        "language_model": {"parameters": 60, "trained": 0},
    }


def test_groups_hold_every_trained_parameter_once() -> None:
    plans = plan_parameters(SHAPES, recipe())
    groups = group(plans)
    names = [name for found in groups for name in found.names]
    assert sorted(names) == sorted(SHAPES)
    assert len({(found.learning_rate, found.weight_decay) for found in groups}) == len(groups) == 7
    assert sum(found.count for found in groups) == sum(plan.count for plan in plans)


def test_the_first_line_that_matches_decides() -> None:
    lines = "trained=[{parameters: '*.norm.*', learning_rate: 0}, {parameters: '*', learning_rate: 2e-3}]"
    plans = {plan.name: plan.learning_rate for plan in plan_parameters(SHAPES, recipe(lines))}
    assert plans["language_model.model.norm.weight"] == plans["multi_modal_projector.norm.weight"] == 0
    assert plans["vision_tower.post_layernorm.weight"] == 2e-3


@pytest.mark.parametrize(
    ("lines", "what", "why"),
    [
        ("[{parameters: vision.*}, {parameters: '*'}]", "'vision.*' decides nothing", "No parameter of the model"),
        ("[{parameters: '*'}, {parameters: vision_tower.*}]", "'vision_tower.*' decides nothing", "Earlier lines"),
        ("[{parameters: multi_modal_projector.*, layer_decay: 0.9}]", "layer_decay of 0.9", "at the peak"),
        ("[{parameters: '*', learning_rate: 0}]", "trains nothing", "are 0"),
    ],
)
def test_lines_that_would_silently_do_nothing_are_errors(lines: str, what: str, why: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_parameters(SHAPES, recipe(f"trained={lines}"))
    assert what in caught.value.what
    assert why in caught.value.why
    assert caught.value.fix


def test_all_bad_lines_are_reported_together() -> None:
    with pytest.raises(BluelmError) as caught:
        plan_parameters(SHAPES, recipe("trained=[{parameters: a.*}, {parameters: b.*}]"))
    assert [problem.what[:26] for problem in caught.value.problems] == [
        "trained: the pattern 'a.*'",
        "trained: the pattern 'b.*'",
    ]
