"""Rounding of activations: error bounds that follow from the steps, and rows that could break it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stages.device.contract.activations import (
    LOW_STEPS,
    SMALLEST,
    STEPS,
    ZERO_POINT,
    high_step,
    round_blocks,
    round_rows,
    unround,
)

Precision = Literal["int8", "int16"]
ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def steps(precision: Precision) -> int:
    """Steps from zero to a token's largest magnitude."""
    return STEPS if precision == "int8" else STEPS * LOW_STEPS


@pytest.mark.parametrize("precision", ["int8", "int16"])
@given(x=ROWS)
def test_rounding_is_off_by_half_a_step_at_most(precision: Precision, x: np.ndarray) -> None:
    rounded = round_rows(x, precision)
    found = unround(rounded).astype(np.float64)
    # Half a step, and a few units in the last place of the largest magnitude: all of it happens in float32.
    largest = rounded.step.astype(np.float64) * STEPS
    allowed = largest * (0.5 / steps(precision) + 4e-7)
    assert (np.abs(found - x) <= allowed).all()


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_the_largest_magnitude_takes_the_last_step(precision: Precision) -> None:
    x = np.array([[-3.0, 1.0, 0.5], [0.25, 2.0, -2.0]], np.float32)
    rounded = round_rows(x, precision)
    np.testing.assert_array_equal(rounded.high[:, :2], [[ZERO_POINT - 127, 170], [144, ZERO_POINT + 127]])
    np.testing.assert_array_equal(rounded.step, np.float32([[3.0], [2.0]]) * high_step())
    assert (rounded.low is None) == (precision == "int8")


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_a_token_of_zeros_stays_zero(precision: Precision) -> None:
    rounded = round_rows(np.zeros((2, 5), np.float32), precision)
    assert (rounded.step == SMALLEST * high_step()).all()
    assert (unround(rounded) == 0).all()


def test_16_bits_see_past_an_outlier() -> None:
    x = np.random.default_rng(0).standard_normal((50, 200)).astype(np.float32)
    x[:, 3] *= 60
    small = np.delete(x, 3, axis=1)
    errors = {
        precision: np.linalg.norm(np.delete(unround(round_rows(x, precision)), 3, axis=1) - small)
        / np.linalg.norm(small)
        for precision in ("int8", "int16")
    }
    assert errors["int8"] > 0.05
    assert errors["int16"] < errors["int8"] / 200


def test_float16_and_float32_round_alike() -> None:
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float16)
    np.testing.assert_array_equal(round_rows(x, "int8").high, round_rows(x.astype(np.float32), "int8").high)


@given(st.integers(1, 70), st.sampled_from([16, 32, 64]))
def test_blocks_round_for_themselves(columns: int, block: int) -> None:
    x = np.random.default_rng(columns).standard_normal((3, columns)).astype(np.float32)
    found = round_blocks(x, block)
    assert found.shape == x.shape
    for start in range(0, columns, block):
        part = x[:, start : start + block]
        scale = np.abs(part).max(-1, keepdims=True) / 127
        np.testing.assert_allclose(found[:, start : start + block], np.rint(part / scale) * scale, rtol=1e-6, atol=0)


def test_a_block_of_zeros_stays_zero() -> None:
    assert (round_blocks(np.zeros((1, 40), np.float32), 32) == 0).all()
