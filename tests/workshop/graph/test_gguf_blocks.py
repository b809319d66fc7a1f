"""Repacking into GGUF's blocks: the very numbers, told by the gguf package's own reader of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.workshop.graph.gguf_blocks import floats, padded, tensor_of, unpacked
from stages.workshop.graph.gguf_model import packed
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import INT4_BLOCKS

gguf = pytest.importorskip("gguf", reason="pip install 'bluelm[neighbours]' for gguf")


def weight_of(seed: int, rows: int, columns: int) -> np.ndarray:
    """Rows of very different sizes, one of them all zeros."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)) * 10.0 ** rng.uniform(-2, 1, (rows, 1))
    weight[rows // 2] = 0
    return weight.astype(np.float32)


def read_back(tensor: Any) -> np.ndarray:
    """By llama.cpp's own Python package."""
    return gguf.quants.dequantize(tensor.data, gguf.GGMLQuantizationType[tensor.kind])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    blocks=st.integers(1, 9),
    block=st.sampled_from(INT4_BLOCKS),
    two_level=st.booleans(),
)
def test_int4_keeps_every_number(seed: int, rows: int, blocks: int, block: int, two_level: bool) -> None:
    weight = weight_of(seed, rows, 32 * blocks)
    quantized = int4_blocks.quantize(weight, block, scale_dtype="float16", two_level=two_level)
    tensor = tensor_of(quantized)
    expected = int4_blocks.dequantize(quantized)
    if block >= 32:
        assert tensor.kind == "Q4_0"
        assert tensor.data.shape == (rows, blocks * 18)
    else:
        assert tensor.kind in (("Q8_0",) if two_level else ("Q8_0", "F32"))
    assert tensor.exact
    np.testing.assert_array_equal(read_back(tensor), expected)
    np.testing.assert_array_equal(unpacked(tensor), expected)


def test_int8_rows_keep_every_number() -> None:
    quantized = int8_channels.quantize(weight_of(1, 7, 96), scale_dtype="float16")
    tensor = tensor_of(quantized)
    assert (tensor.kind, tensor.exact) == ("Q8_0", True)
    np.testing.assert_array_equal(read_back(tensor), int8_channels.dequantize(quantized))
    np.testing.assert_array_equal(unpacked(tensor), int8_channels.dequantize(quantized))


def test_a_scale_that_float16_has_not_is_rounded_and_told() -> None:
    quantized = int8_channels.quantize(weight_of(1, 7, 96))
    tensor = tensor_of(quantized)
    assert not tensor.exact
    expected = int8_channels.dequantize(quantized)
    assert (np.abs(unpacked(tensor) - expected) <= np.abs(expected) / 2048).all()


def test_a_scale_beyond_float16_is_no_weight() -> None:
    with pytest.raises(OverflowError, match="beyond float16"):
        tensor_of(int8_channels.quantize(weight_of(1, 7, 96) * 1e9))


def test_what_helps_against_such_a_scale_is_told_and_helps() -> None:
    name = "language_model.model.layers.3.mlp.down_proj"
    weight = weight_of(1, 7, 96) * 1e9
    with pytest.raises(ModelError) as caught:
        packed(name, int8_channels.quantize(weight), "F32")
    assert f"modules: {name}, weights: float" in caught.value.fix and "scale_dtype" not in caught.value.fix
    np.testing.assert_array_equal(packed(name, weight, "F32").data, weight)


def test_columns_that_32_does_not_divide_stay_float() -> None:
    quantized = int4_blocks.quantize(weight_of(2, 5, 44), 32, scale_dtype="float16")
    tensor = tensor_of(quantized)
    assert tensor.kind == "F32"
    np.testing.assert_array_equal(tensor.data, int4_blocks.dequantize(quantized))


@pytest.mark.parametrize("form", ["float", "int8", 32, 128])
def test_padding_adds_zeros_and_changes_nothing(form: str | int) -> None:
    weight, bias = weight_of(3, 6, 44), np.arange(6, dtype=np.float32)
    if form == "float":
        linear = Linear(weight, bias)
    elif form == "int8":
        linear = Linear(int8_channels.quantize(weight, scale_dtype="float16"), bias)
    else:
        linear = Linear(int4_blocks.quantize(weight, form, scale_dtype="float16"), bias)
    wide = padded(linear, 10, 64)
    tensor = tensor_of(wide.weight)
    assert tensor.exact
    expected = np.pad(linear.dequantized(), ((0, 4), (0, 20)))
    np.testing.assert_array_equal(unpacked(tensor), expected)
    np.testing.assert_array_equal(wide.bias, np.pad(bias, (0, 4)))


@pytest.mark.parametrize(("stored", "kind"), [("F32", "F32"), ("F16", "F16"), ("BF16", "BF16")])
def test_float_weights_stay_what_the_file_had(stored: str, kind: str) -> None:
    values = (np.arange(-128, 128, dtype=np.float32) / 64).reshape(4, 64)
    tensor = floats(values, stored)
    assert tensor.kind == kind
    np.testing.assert_array_equal(unpacked(tensor), values)
    np.testing.assert_array_equal(read_back(tensor), values)
