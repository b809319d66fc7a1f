"""INT4 blocks: hand-worked cases, and properties on any weight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from stages.device.contract import int4_blocks

WEIGHTS = st.tuples(st.integers(1, 4), st.integers(1, 70)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32))
)
BLOCKS = st.sampled_from([2, 4, 16, 32])
DTYPES = st.sampled_from(["float16", "float32"])


def test_hand_worked_block_takes_max_over_seven_when_signs_balance():
    quantized = int4_blocks.quantize(np.array([[7.0, -7.0, 3.5, 0.4]], np.float32), 4)
    assert_array_equal(quantized.scales, [[1.0]])
    assert_array_equal(quantized.values, [[7, -7, 4, 0]])  # 3.5 rounds half to even


def test_hand_worked_block_takes_signed_max_over_minus_eight_when_it_errs_less():
    # max/7: scale 8/7 leaves 1, 2, 3 off; 8/-8 = -1 represents all of them exactly.
    quantized = int4_blocks.quantize(np.array([[8.0, 1.0, 2.0, 3.0]], np.float32), 4)
    assert_array_equal(quantized.scales, [[-1.0]])
    assert_array_equal(quantized.values, [[-8, -1, -2, -3]])


def test_a_zero_block_has_scale_one_and_stays_zero():
    quantized = int4_blocks.quantize(np.zeros((2, 8), np.float32), 4)
    assert_array_equal(quantized.scales, np.ones((2, 2)))
    assert_array_equal(int4_blocks.dequantize(quantized), np.zeros((2, 8)))


def test_packing_is_low_nibble_first_with_zero_point_eight():
    values = np.array([[-8, 7, 0, 1, 5]], np.int8)
    quantized = int4_blocks.Int4Blocks(values, np.ones((1, 2), np.float32), 4)
    assert_array_equal(int4_blocks.pack(quantized), [[[0xF0, 0x98], [0x8D, 0x88]]])


def test_an_odd_block_cannot_be_packed():
    quantized = int4_blocks.quantize(np.ones((1, 3), np.float32), 3)
    with pytest.raises(ValueError, match="a block of 3"):
        int4_blocks.pack(quantized)


@given(st.tuples(st.integers(1, 4), st.integers(1, 70)), BLOCKS, st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack(shape, block, seed):
    values = np.random.default_rng(seed).integers(-8, 8, shape).astype(np.int8)
    scales = np.ones((shape[0], -(-shape[1] // block)), np.float32)
    packed = int4_blocks.pack(int4_blocks.Int4Blocks(values, scales, block))
    assert packed.shape == (shape[0], scales.shape[1], block // 2)
    assert_array_equal(int4_blocks.unpack(packed, shape[1]), values)


@given(WEIGHTS, BLOCKS, DTYPES)
def test_error_is_at_most_half_a_step_unless_the_finer_scale_clips(weight, block, dtype):
    quantized = int4_blocks.quantize(weight, block, scale_dtype=dtype)
    step = np.repeat(np.abs(quantized.scales), block, axis=1)[:, : weight.shape[1]].astype(np.float64)
    error = np.abs(int4_blocks.dequantize(quantized).astype(np.float64) - weight)
    clipped = (quantized.values == 7) & (error > step / 2)
    slack = 1e-6 * np.abs(weight) + 1e-44
    assert (error <= np.where(clipped, step * 1.001, step / 2) + slack).all()


@given(WEIGHTS, BLOCKS, DTYPES)
def test_the_chosen_scale_is_never_worse_than_max_over_seven(weight, block, dtype):
    chosen = int4_blocks.quantize(weight, block, scale_dtype=dtype)
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % block)))
    largest = np.abs(padded).reshape(weight.shape[0], -1, block).max(-1)
    plain_scale = np.where(largest, (largest / np.float32(7)).astype(dtype), 1).astype(np.float32)
    plain_scale[plain_scale == 0] = np.finfo(dtype).smallest_subnormal
    plain = int4_blocks.quantize(weight, block, scales=plain_scale)

    def squared(quantized):
        error = np.pad(int4_blocks.dequantize(quantized) - weight, ((0, 0), (0, -weight.shape[1] % block)))
        return (error.astype(np.float64) ** 2).reshape(*largest.shape, block).sum(-1)

    assert (squared(chosen) <= squared(plain) * (1 + 1e-9)).all()


@given(WEIGHTS, BLOCKS)
def test_float16_scales_are_float16_numbers(weight, block):
    scales = int4_blocks.block_scales(weight, block, "float16")
    assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    assert (scales != 0).all()


@given(WEIGHTS, BLOCKS)
def test_quantizing_a_dequantized_weight_with_its_scales_changes_nothing(weight, block):
    first = int4_blocks.quantize(weight, block, scale_dtype="float16")
    again = int4_blocks.quantize(int4_blocks.dequantize(first), block, scales=first.scales)
    assert_array_equal(again.values, first.values)


def test_a_scale_beyond_float16_is_refused():
    with pytest.raises(OverflowError, match="float16"):
        int4_blocks.quantize(np.full((1, 4), 1e6, np.float32), 4, scale_dtype="float16")
