"""Two-level INT4 scales: on their grid, exact wherever they are stored, and no worse a fit than they must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from stages.device.contract import int4_blocks
from stages.device.contract.int4_blocks import TwoLevel

WEIGHTS = st.tuples(st.integers(1, 4), st.integers(1, 70)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32))
)
# Down to where a float16 scale has a single bit left.
TINY = st.sampled_from([1.0, 1e-3, 1e-5, 1e-7])
BLOCKS = st.sampled_from([2, 4, 16, 32])
DTYPES = st.sampled_from(["float16", "float32"])


def two_level(weight, block, dtype="float32"):
    return int4_blocks.quantize(weight, block, scale_dtype=dtype, two_level=True)


@given(WEIGHTS, TINY, BLOCKS, DTYPES)
def test_scales_are_steps_of_a_channel_and_exact_as_stored(weight, factor, block, dtype):
    scales = two_level(weight * np.float32(factor), block, dtype).scales
    split = int4_blocks.split_scales(scales)
    assert split is not None
    assert (split.channel > 0).all()
    assert ((np.abs(split.steps) >= 1) & (np.abs(split.steps) <= int4_blocks.STEP_MAX)).all()
    assert_array_equal(split.steps * split.channel[:, None].astype(np.float64), scales)
    assert_array_equal(scales.astype(dtype).astype(np.float32), scales)


@given(WEIGHTS, TINY, BLOCKS, DTYPES)
def test_the_expanded_weight_is_the_dequantized_one_to_the_last_bit(weight, factor, block, dtype):
    quantized = two_level(weight * np.float32(factor), block, dtype)
    split = int4_blocks.split_scales(quantized.scales)
    assert split is not None
    whole = int4_blocks.expand(quantized.values, split.steps, block)
    assert whole.dtype == np.int8
    assert np.abs(whole.astype(int)).max() <= 120
    assert_array_equal(whole.astype(np.float32) * split.channel[:, None], int4_blocks.dequantize(quantized))


@given(
    st.integers(1, 5).flatmap(
        lambda rows: st.tuples(
            arrays(np.int8, (rows, 6), elements=st.integers(1, 15).flatmap(lambda n: st.sampled_from([n, -n]))),
            arrays(np.int64, rows, elements=st.integers(64, 127)),
            arrays(np.int64, rows, elements=st.integers(-24, 2)),
        )
    )
)
def test_split_scales_finds_any_grid(parts):
    steps, mantissa, exponent = parts
    channel = np.ldexp(mantissa, exponent).astype(np.float32)
    scales = steps * channel[:, None]
    assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    split = int4_blocks.split_scales(scales)
    assert isinstance(split, TwoLevel)
    assert_array_equal(split.steps * split.channel[:, None], scales)
    assert (split.channel >= channel).all()


def test_scales_off_any_grid_have_no_split():
    scales = np.array([[0.1, 0.2, 0.3], [0.1, 0.25, 0.11]], np.float32)
    assert int4_blocks.split_scales(scales[:1] * 0 + np.float32([[1, 2, 15]])) is not None
    assert int4_blocks.split_scales(scales) is None
    assert int4_blocks.split_scales(np.array([[1.0, 16.0]], np.float32)) is None
    assert int4_blocks.split_scales(np.array([[0.0, 1.0]], np.float32)) is None


@pytest.mark.parametrize("block", [32, 64, 128])
def test_the_search_fits_normal_weights_better_than_free_scales(block):
    weight = np.random.default_rng(0).standard_normal((64, 1152)).astype(np.float32)

    def error(quantized):
        return np.linalg.norm(int4_blocks.dequantize(quantized) - weight)

    assert error(two_level(weight, block)) < error(int4_blocks.quantize(weight, block))


@given(WEIGHTS, BLOCKS)
def test_no_block_is_further_off_than_a_coarse_grid_makes_it(weight, block):
    """The search minds squared errors, and one candidate's steps are about an eighth of the row's largest value.

    Such steps clip what lies on the other side of -8 by an eighth at most, and round the rest by half of that.
    """
    quantized = two_level(weight, block)
    wrong = np.pad(int4_blocks.dequantize(quantized) - weight, ((0, 0), (0, -weight.shape[1] % block)))
    typical = np.sqrt(np.square(wrong.reshape(len(weight), -1, block), dtype=np.float64).mean(axis=2))  # [N, G]
    assert (typical <= np.abs(weight).max(axis=1, keepdims=True) / 7.8 + 1e-40).all()


def test_rows_with_nothing_stay_nothing():
    weight = np.zeros((2, 8), np.float32)
    weight[1, :4] = [7, -7, 3, 1]
    quantized = two_level(weight, 4)
    assert_array_equal(int4_blocks.dequantize(quantized)[0], 0)
    assert_array_equal(int4_blocks.dequantize(quantized)[1, 4:], 0)
    assert quantized.scales[0, 0] == 1


def test_a_grid_beyond_float16_is_refused():
    with pytest.raises(OverflowError, match="float16"):
        two_level(np.full((1, 4), 1e6, np.float32), 4, "float16")
    assert np.isfinite(two_level(np.full((1, 4), 1e6, np.float32), 4).scales).all()
