"""Which inputs are rounded how: the first rule decides, a bound lets the measurement decide."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.artifacts.recipes import load_config
from stages.quantize import QuantizeConfig
from stages.workshop.quant.activation_policy import (
    DEFAULT,
    FIXED_POLICIES,
    ActivationRule,
    resolve,
    unused,
    within_budget,
)

DOWN, UP, TOWER = "language_model.model.layers.3.mlp.down_proj", "language_model.x.up_proj", "vision_tower.fc1"
NAMES = (DOWN, UP, TOWER)
MIX = (
    ActivationRule(modules="language_model.*", activations="int8", int16_above=0.02),
    ActivationRule(modules="re:vision_tower\\..*", activations="float"),
)


def test_the_measurement_decides_where_there_is_a_bound() -> None:
    chosen = resolve(MIX, NAMES, {DOWN: 0.021, UP: 0.02, TOWER: 0.9})
    assert chosen == {DOWN: "int16", UP: "int8", TOWER: "float"}


def test_what_no_input_reached_stays_on_the_safe_side() -> None:
    assert resolve(MIX, NAMES, {DOWN: None}) == {DOWN: "int16", UP: "int16", TOWER: "float"}


def test_the_first_rule_decides_and_none_means_the_default() -> None:
    rules = (
        ActivationRule(modules="*.down_proj", activations="int16"),
        ActivationRule(modules="l*", activations="float"),
    )
    assert resolve(rules, NAMES, {}) == {DOWN: "int16", UP: "float", TOWER: DEFAULT}
    assert resolve((), NAMES, {}) == dict.fromkeys(NAMES, DEFAULT)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("paper", ("int16", "int16", "int16")),
        ("mix", ("int16", "int8", "int8")),
        ("int8", ("int8", "int8", "int8")),
        ("float", ("float", "float", "float")),
    ],
)
def test_policies_without_a_measurement(policy: str, expected: tuple[str, ...]) -> None:
    rules = FIXED_POLICIES[policy]  # type: ignore[index]
    assert resolve(rules, NAMES, {}) == dict(zip(NAMES, expected, strict=True))
    assert not unused(rules, NAMES)


def test_a_rule_that_decides_nothing_is_an_error() -> None:
    rules = (*MIX, ActivationRule(modules="vision_tower.fc1", activations="int8"))
    problems = unused(rules, NAMES)
    assert [problem.what for problem in problems] == [
        "activations, rule 3, 'vision_tower.fc1', decides for no Linear of this model."
    ]
    assert "move it above" in problems[0].fix


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"modules": "*", "activations": "int16", "int16_above": 0.1}, "int16_above belongs to int8"),
        ({"modules": "re:(", "activations": "int8"}, "not a regular expression"),
        ({"modules": "*", "activations": "int4"}, "int16"),
        ({"modules": "*", "activations": "int8", "int16_above": -1}, "greater than or equal to 0"),
    ],
)
def test_what_a_rule_cannot_say(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ActivationRule.model_validate(fields)


def test_the_recipes_that_come_with_bluelm() -> None:
    paper, mix = (load_config(QuantizeConfig, f"{name}.yaml", (), {}) for name in ("quantize", "quantize-mix"))
    assert set(resolve(paper.activations, NAMES, {}).values()) == {"int16"}
    assert resolve(mix.activations, NAMES, {DOWN: 0.5, UP: 0.001}) == {DOWN: "int16", UP: "int8", TOWER: "int8"}
    assert (mix.rules, mix.scales) == (paper.rules, "two-level")


def test_a_bound_needs_something_measured() -> None:
    rules = {"rules": [{"modules": "*", "weights": "int8"}], "activations": [rule.model_dump() for rule in MIX]}
    with pytest.raises(ValidationError, match="error_samples: 0 measures nothing"):
        QuantizeConfig.model_validate({**rules, "error_samples": 0})


def rms(errors: list[float]) -> float:
    return math.sqrt(sum(error * error for error in errors) / len(errors)) if errors else 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0, 1))
def test_a_budget_is_kept_with_as_few_int16_as_can_be(errors: list[float], budget: float) -> None:
    names = [f"linear{index}" for index in range(len(errors))]
    known = dict(zip(names, errors, strict=True))
    chosen = within_budget(dict.fromkeys(names, "int8"), known, budget)
    left = [known[name] if chosen[name] == "int8" else 0.0 for name in names]
    assert rms(left) <= budget * (1 + 1e-6)
    wide = sum(precision == "int16" for precision in chosen.values())
    # Every choice with fewer INT16 is over the budget.
    for fewer in range(wide):
        for spared in itertools.combinations(range(len(errors)), fewer):
            kept = [0.0 if index in spared else error for index, error in enumerate(errors)]
            assert rms(kept) > budget


def test_a_budget_leaves_other_precisions_alone_and_spares_what_was_not_seen() -> None:
    chosen = {DOWN: "int8", UP: "int16", TOWER: "float", "unseen": "int8"}
    found = within_budget(chosen, {DOWN: 0.01, UP: 0.5, TOWER: 0.5, "unseen": None}, 0.02)  # type: ignore[arg-type]
    assert found == {DOWN: "int8", UP: "int16", TOWER: "float", "unseen": "int16"}
