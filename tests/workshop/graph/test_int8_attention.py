"""Attention with INT8 products: the graph is the contract's, and both are near attention in float32."""

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


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The same in float64, without rounding."""
    q, k, v = (
        part.astype(np.float64).reshape(TILES, POSITIONS, HEADS, SIZE).transpose(0, 2, 1, 3) for part in (q, k, v)
    )
    weights = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(SIZE))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(TILES, POSITIONS, HEADS * SIZE)


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


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("plain", 0.02), ("sharp", 0.08), ("spread", 0.03), ("zero heads", 0.02), ("a loud token", 0.05)],
)
def test_it_is_near_attention_in_float(kind: str, tolerance: float) -> None:
    q, k, v = factors(kind)
    expected = attention(q, k, v)
    error = np.linalg.norm(int8_attention.attend(q, k, v, HEADS) - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < tolerance


def test_a_tile_does_not_see_the_others() -> None:
    q, k, v = factors("a loud token")
    together = int8_attention.attend(q, k, v, HEADS)
    for tile in range(TILES):
        alone = int8_attention.attend(*(part[tile : tile + 1] for part in (q, k, v)), HEADS)
        np.testing.assert_allclose(alone[0], together[tile], rtol=1e-6, atol=1e-6)


@given(st.integers(1, 48), st.integers(1, 1500))
def test_groups_of_heads_fit_and_are_whole(number: int, positions: int) -> None:
    together = heads_at_once(number, positions)
    assert number % together == 0
    assert together == 1 or together * positions**2 <= graph.WEIGHTS_AT_ONCE
