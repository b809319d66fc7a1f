"""INT8 KV values: hand-worked rounding and clipping, error bound."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from stages.device.contract import int8_kv


def test_rounds_half_to_even_and_clips():
    stored = int8_kv.quantize(np.array([0.25, 0.75, -0.25, 100.0, -100.0], np.float32), 0.5)
    assert_array_equal(stored, [0, 2, 0, 127, -128])
    assert_array_equal(int8_kv.dequantize(stored, 0.5), np.array([0, 1, 0, 63.5, -64], np.float32))


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-64, 64, width=16)))
def test_nothing_clips_with_the_scale_of_the_largest_value(values):
    scale = int8_kv.scale_for(float(np.abs(values).max()))
    error = np.abs(int8_kv.dequantize(int8_kv.quantize(values, scale), scale).astype(np.float64) - values)
    assert (error <= scale * 0.50001).all()
