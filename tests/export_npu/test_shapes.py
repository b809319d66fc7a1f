"""What the static graphs cannot express, and Linears that an NPU's compiler would refuse, in whatever layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.workshop.graph.graphs import model_shape
from stages.workshop.model.presets import preset_config
from stages.workshop.npu.sizes import linears, shape_problems
from stages.workshop.quant.modules import empty_model, weighted_modules
from stages.workshop.quant.policy import Scheme


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qk_norm": True}, "norms of queries and keys"),
        ({"unturned": frozenset({1})}, "layers without positions"),
        ({}, ""),
    ],
)
def test_what_the_static_decoder_has_not_is_refused(change: dict[str, Any], words: str) -> None:
    shape = model_shape(preset_config("tiny"), 128)
    weights: Any = SimpleNamespace(folder=Path("int4"), scheme=lambda name: Scheme(weights="int8"))
    problems = shape_problems(weights, replace(shape, decoder=replace(shape.decoder, **change)))
    assert [words in problem.what for problem in problems] == ([True] if words else [])


def told(schemes: dict[str, Scheme]) -> list[str]:
    """The problems of a tiny model that is INT8 but for some Linears."""
    shape = model_shape(preset_config("tiny"), 128)
    assert schemes.keys() <= linears(shape).keys()
    weights: Any = SimpleNamespace(folder=Path("q"), scheme=lambda name: schemes.get(name, Scheme(weights="int8")))
    return [problem.what for problem in shape_problems(weights, shape)]


def test_the_linears_are_those_of_the_model() -> None:
    """Names and columns of every Linear that transformers builds from the same configuration."""
    for change in ({}, {"fuse_linear": True}, {"downsampler": "none"}):
        config = preset_config("tiny")
        for key, value in change.items():
            setattr(config, key, value)
        tower = f"vision_tower.encoder.layers.{config.vision_layers_used}."
        modules = {
            module.name: module.columns
            for module in weighted_modules(empty_model(config))
            if module.kind in ("linear", "head", "tied head")
        }
        found = linears(model_shape(config, 128))
        # The tower's pooling head and layers behind the one whose output is used are not computed.
        unused = {name for name in modules if name.startswith(("vision_tower.head.", tower))}
        assert found == {name: columns for name, columns in modules.items() if name not in unused}


@pytest.mark.parametrize(
    "name",
    [
        "language_model.model.layers.1.self_attn.q_proj",
        "language_model.model.layers.1.mlp.down_proj",
        "vision_tower.encoder.layers.1.mlp.fc2",
        "multi_modal_projector.linear_1",
        "language_model.lm_head",
    ],
)
def test_a_linear_of_any_layer_is_looked_at(name: str) -> None:
    (problem,) = told({name: Scheme(weights="float")})
    assert f"{name} is float" in problem
    (problem,) = told({name: Scheme(weights="int4", group_size=8)})
    assert f"{name} has INT4 blocks of 8 over" in problem
    assert told({}) == []


def test_linears_with_one_problem_are_told_together() -> None:
    names = [f"language_model.model.layers.{layer}.self_attn.{part}_proj" for layer in (0, 1) for part in "qk"]
    (problem,) = told(dict.fromkeys(names, Scheme(weights="float")))
    assert f"{names[0]} and 3 more Linears are float" in problem
