"""INT8 channels: hand-worked cases, and properties on any weight."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from stages.device.contract import int8_channels

WEIGHTS = st.tuples(st.integers(1, 4), st.integers(1, 70)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32))
)


def test_hand_worked_rows():
    quantized = int8_channels.quantize(np.array([[127.0, -63.5, 0.5], [0.0, 0.0, 0.0]], np.float32))
    assert_array_equal(quantized.scales, [1.0, 1.0])
    assert_array_equal(quantized.values, [[127, -64, 0], [0, 0, 0]])  # halves to even


def test_packing_adds_128_pads_with_it_and_repeats_the_scale():
    quantized = int8_channels.Int8Channels(np.array([[-127, 0, 127]], np.int8), np.array([0.5], np.float32))
    packed, scales = int8_channels.pack(quantized, 2)
    assert_array_equal(packed, [[[1, 128], [255, 128]]])
    assert_array_equal(scales, [[0.5, 0.5]])


@given(WEIGHTS, st.sampled_from([16, 32]))
def test_unpack_inverts_pack(weight, block):
    quantized = int8_channels.quantize(weight)
    packed, scales = int8_channels.pack(quantized, block)
    assert packed.shape == (weight.shape[0], -(-weight.shape[1] // block), block)
    assert scales.shape == packed.shape[:2]
    assert_array_equal(int8_channels.unpack(packed, weight.shape[1]), quantized.values)


@given(WEIGHTS, st.sampled_from(["float16", "float32"]))
def test_error_is_at_most_half_a_step(weight, dtype):
    quantized = int8_channels.quantize(weight, scale_dtype=dtype)
    error = np.abs(int8_channels.dequantize(quantized).astype(np.float64) - weight)
    # float16 rounds a scale by up to 2^-11, which moves the outermost value (127 steps out) by up to 0.06 of a step.
    slack = 0.07 if dtype == "float16" else 1e-4
    assert (error <= quantized.scales[:, None].astype(np.float64) * (0.5 + slack) + 1e-44).all()
    assert np.abs(quantized.values.astype(int)).max() <= 127
