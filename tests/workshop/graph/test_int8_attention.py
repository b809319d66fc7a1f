"""Attention with INT8 products: the graph is the contract's, in groups of heads as in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.device.contract import int8_attention
from stages.workshop.graph import int8_attention as graph
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.int8_attention import emit_int8_attention, heads_at_once

TILES, HEADS, SIZE, POSITIONS = 2, 6, 10, 21


def factors(kind: str) -> list[np.ndarray]:
    """q, k and v [T, P, N·D] of several difficulties."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((TILES, POSITIONS, HEADS * SIZE)).astype(np.float32) for _ in range(3))
    match kind:
        case "sharp":
            q *= 12
        case "spread":
            q *= 1e-3
        case "zero heads":
            for part in (q, k, v):
                part[0, :, 2 * SIZE : 3 * SIZE] = 0
        case "a loud token":
            k[0, 4] *= 30
    return [q, k, v]


def write(folder: Path) -> Path:
    width = HEADS * SIZE
    with GraphEmitter(folder, "attention.onnx", "/vision") as emitter:
        for name in "qkv":
            emitter.input(name, FLOAT, ["tiles", POSITIONS, width])
        result = emit_int8_attention(emitter, "qkv", "layers.0/attn", number=HEADS, size=SIZE, positions=POSITIONS)
        emitter.output(result, FLOAT, ["tiles", POSITIONS, width])
        emitter.save()
    return folder / "attention.onnx"


@pytest.mark.parametrize("at_once", [1, 2, 6])
@pytest.mark.parametrize("kind", ["plain", "sharp", "spread", "zero heads", "a loud token"])
def test_the_graph_is_the_contracts(
    kind: str, at_once: int, tmp_path: Path, open_graph: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "WEIGHTS_AT_ONCE", at_once * POSITIONS**2)
    q, k, v = factors(kind)
    path = write(tmp_path)
    softmaxes = [node for node in onnx.load(path).graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == HEADS // at_once
    (found,) = open_graph(path)({"q": q, "k": k, "v": v}).values()
    expected = int8_attention.attend(q, k, v, HEADS)
    # Where a weight lies on the border of two steps, an ulp decides.
    step = np.abs(v).max() / 255
    assert np.abs(found - expected).max() <= step
    assert (np.abs(found - expected) > 1e-6 * np.abs(expected).max()).mean() < 0.02


@given(st.integers(1, 48), st.integers(1, 1500))
def test_groups_of_heads_fit_and_are_whole(number: int, positions: int) -> None:
    together = heads_at_once(number, positions)
    assert number % together == 0
    assert together == 1 or together * positions**2 <= graph.WEIGHTS_AT_ONCE
