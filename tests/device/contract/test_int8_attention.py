"""Attention with INT8 products against attention in float64, over what could break rounding."""

from __future__ import annotations

import numpy as np
import pytest

from stages.device.contract.int8_attention import attend

TILES, HEADS, SIZE, POSITIONS = 2, 6, 10, 200


def factors(loud: float = 1, sharpness: float = 1) -> list[np.ndarray]:
    """q, k and v [T, P, N·D]; one token's key `loud` times as large."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((TILES, POSITIONS, HEADS * SIZE)).astype(np.float32) for _ in range(3))
    k[0, 4] *= loud
    return [q * np.float32(sharpness), k, v]


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Without rounding, in float64."""
    q, k, v = (
        part.astype(np.float64).reshape(TILES, POSITIONS, HEADS, SIZE).transpose(0, 2, 1, 3) for part in (q, k, v)
    )
    weights = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(SIZE))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(TILES, POSITIONS, HEADS * SIZE)


@pytest.mark.parametrize(
    ("loud", "sharpness", "tolerance"), [(1, 1, 0.02), (1, 12, 0.05), (1, 1e-3, 0.05), (30, 1, 0.03)]
)
def test_it_is_near_attention_in_float(loud: float, sharpness: float, tolerance: float) -> None:
    """Plain, sharp (near one-hot), spread (each weight less than a 255th) and with one loud token."""
    q, k, v = factors(loud, sharpness)
    expected = attention(q, k, v)
    error = np.linalg.norm(attend(q, k, v, HEADS) - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < tolerance


def test_a_tile_and_a_head_do_not_see_the_others() -> None:
    q, k, v = factors(loud=30)
    together = attend(q, k, v, HEADS)
    for tile in range(TILES):
        alone = attend(*(part[tile : tile + 1] for part in (q, k, v)), HEADS)
        np.testing.assert_allclose(alone[0], together[tile], rtol=1e-6, atol=1e-6)
    head = attend(*(part[..., :SIZE] for part in (q, k, v)), 1)
    np.testing.assert_allclose(head, together[..., :SIZE], rtol=1e-6, atol=1e-6)


def test_zeros_stay_zeros() -> None:
    zeros = np.zeros((1, 5, HEADS * SIZE), np.float32)
    assert (attend(zeros, zeros, zeros, HEADS) == 0).all()
