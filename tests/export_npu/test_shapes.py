"""Language models that the static decoder cannot express."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.workshop.graph.graphs import model_shape
from stages.workshop.model.presets import preset_config
from stages.workshop.npu.sizes import shape_problems
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
