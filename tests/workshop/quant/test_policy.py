"""Policies: first match wins, and every mistake is named before anything is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import BluelmError, RecipeError
from stages.artifacts.recipes import validate
from stages.workshop.quant.policy import FLOAT, Rule, Scheme, WeightedModule, assign, legal_groups

MODULES = (
    WeightedModule("vision_tower.embeddings.patch_embedding", "convolution", 32, 108),
    WeightedModule("vision_tower.embeddings.position_embedding", "embedding", 16, 32),
    WeightedModule("vision_tower.encoder.layers.0.mlp.fc1", "linear", 64, 32),
    WeightedModule("language_model.model.embed_tokens", "token embedding", 100, 64),
    WeightedModule("language_model.model.layers.0.mlp.down_proj", "linear", 64, 96),
    WeightedModule("language_model.model.layers.10.mlp.down_proj", "linear", 64, 96),
    WeightedModule("language_model.lm_head", "head", 100, 64),
)
NAMES = [module.name for module in MODULES]


def rules(*lines):
    return [Rule(modules=pattern, weights=weights, group_size=group) for pattern, weights, group in lines]


def test_the_first_rule_that_matches_wins_and_the_rest_stays_float():
    schemes = assign(
        rules(
            ("language_model.model.layers.0.*", "int8", None),
            (r"re:language_model\.model\.layers\.\d+\..*", "int4", 16),
        ),
        MODULES,
    )
    assert schemes["language_model.model.layers.0.mlp.down_proj"] == Scheme(weights="int8")
    assert schemes["language_model.model.layers.10.mlp.down_proj"] == Scheme(weights="int4", group_size=16)
    others = set(NAMES) - {name for name in NAMES if "layers" in name and name.startswith("language")}
    assert {schemes[name] for name in others} == {FLOAT}


def test_int4_without_a_group_size_has_groups_of_32():
    assert Rule(modules="*", weights="int4").scheme == Scheme(weights="int4", group_size=32)


@given(st.lists(st.tuples(st.sampled_from([*NAMES, "language_model.*", "*layers*", "*"]), st.booleans()), max_size=6))
def test_assignment_equals_a_plain_walk_over_the_rules(lines):
    # int8 fits everything but convolutions and embeddings; leave those out.
    modules = [module for module in MODULES if module.kind not in ("convolution", "embedding")]
    drawn = [Rule(modules=pattern, weights="int8" if integer else "float") for pattern, integer in lines]
    expected, hit = {}, set()
    for module in modules:
        expected[module.name] = "float"
        for index, rule in enumerate(drawn):
            pattern = rule.modules
            if (
                pattern == "*"
                or pattern == module.name
                or (pattern == "language_model.*" and module.name.startswith("language_model."))
                or (pattern == "*layers*" and "layers" in module.name)
            ):
                expected[module.name] = rule.weights
                hit.add(index)
                break
    if len(hit) == len(drawn):
        assert {name: scheme.weights for name, scheme in assign(drawn, modules).items()} == expected
    else:
        with pytest.raises(BluelmError) as caught:
            assign(drawn, modules)
        assert len(caught.value.problems) == len(drawn) - len(hit)
        for index in set(range(len(drawn))) - hit:
            assert any(f"Rule {index + 1}, " in problem.what for problem in caught.value.problems)


def test_a_pattern_that_matches_nothing_is_named_with_what_there_is():
    with pytest.raises(RecipeError, match=r"Rule 1, 'vision_tover\.\*', matches no module") as caught:
        assign(rules(("vision_tover.*", "int8", None)), MODULES)
    assert "vision_tower.encoder.*" in caught.value.fix


def test_a_rule_below_one_that_takes_everything_is_named():
    with pytest.raises(RecipeError, match=r"Rule 2, .*lm_head', is never reached: .* taken by 'language_model\.\*'"):
        assign(rules(("language_model.*", "int8", None), ("language_model.lm_head", "float", None)), MODULES)


def test_the_patch_embedding_cannot_be_packed():
    with pytest.raises(BluelmError) as caught:
        assign(rules(("vision_tower.*", "int8", None)), MODULES)
    whats = [problem.what for problem in caught.value.problems]
    assert any("patch_embedding (convolution) would become int8" in what for what in whats)
    assert any("position_embedding (embedding) would become int8" in what for what in whats)


def test_columns_that_the_group_does_not_divide_are_all_named_with_legal_groups():
    odd = WeightedModule("language_model.model.layers.0.mlp.down_proj", "linear", 64, 172)
    even = WeightedModule("language_model.model.layers.1.mlp.down_proj", "linear", 64, 48)
    with pytest.raises(BluelmError) as caught:
        assign(rules(("language_model.*", "int4", 32)), (odd, even))
    first, second = caught.value.problems
    assert "layers.0.mlp.down_proj has 172 columns, which groups of 32" in first.what
    assert "divide 172: 4 (an export needs at least 16" in first.fix
    assert "divide 48: 4, 8, 16." in second.fix


@given(st.integers(1, 10_000))
def test_legal_groups_are_all_powers_of_two_that_divide(columns):
    assert legal_groups(columns) == [g for g in (2**p for p in range(2, 14)) if columns % g == 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modules": "re:(", "weights": "int8"}, "not a regular expression"),
        ({"modules": "x", "weights": "int8", "group_size": 32}, "group_size belongs to int4"),
        ({"modules": "x", "weights": "int3"}, "weights"),
        ({"modules": "", "weights": "int8"}, "modules"),
        ({"modules": "x", "weights": "int8", "group": 32}, "unknown key 'group'"),
    ],
)
def test_a_bad_rule_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        validate(Rule, values, "quantize.yaml")
