"""The file's layout: contract, torch and compressed-tensors agree to the last bit."""

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.workshop.quant import packed
from stages.workshop.quant.packed import (
    ScaleFormat,
    dequantize,
    pack,
    packed_bytes,
    relative_error,
    round_to_nearest,
    unpack,
)
from stages.workshop.quant.policy import Scheme

SCHEMES = st.sampled_from(
    [Scheme(weights="int8"), *(Scheme(weights="int4", group_size=group) for group in (2, 4, 16, 32))]
)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3))
DTYPES = st.sampled_from(["float16", "float32"])


def weight_of(shape, scheme, seed, odd_columns=7):
    columns = shape[1] * (scheme.group_size or odd_columns)
    generator = torch.Generator().manual_seed(seed)
    # Scales that differ by orders of magnitude from row to row, as trained weights have them.
    return torch.randn(shape[0], columns, generator=generator) * torch.logspace(-3, 1, shape[0])[:, None]


def library_scheme(scheme):
    strategy = "group" if scheme.group_size else "channel"
    weights = QuantizationArgs(num_bits=scheme.bits, strategy=strategy, group_size=scheme.group_size, symmetric=True)
    return QuantizationScheme(targets=["Linear"], weights=weights, format="pack-quantized")


@given(SHAPES, SCHEMES, DTYPES, st.integers(0, 99))
def test_contract_equals_compressed_tensors_bit_for_bit(shape, scheme, dtype, seed):
    weight = weight_of(shape, scheme, seed)
    ours = round_to_nearest("w", weight, scheme, ScaleFormat(dtype))
    tensors = pack(ours, dtype)
    library = BaseCompressor.get_value_from_registry("pack-quantized")
    scales = torch.from_numpy(ours.scales).reshape(shape[0], -1)
    theirs = library.compress({"weight": weight, "weight_scale": scales}, library_scheme(scheme))
    assert theirs.keys() == tensors.keys()
    assert_array_equal(theirs["weight_packed"], tensors["weight_packed"])
    assert_array_equal(theirs["weight_shape"], tensors["weight_shape"])
    # The loader casts the scales to the model's float32, then multiplies.
    loaded = tensors | {"weight_scale": tensors["weight_scale"].float()}
    assert_array_equal(library.decompress(loaded, library_scheme(scheme))["weight"], dequantize(ours))


@given(SHAPES, SCHEMES, DTYPES, st.integers(0, 99))
def test_unpack_inverts_pack_exactly(shape, scheme, dtype, seed):
    ours = round_to_nearest("w", weight_of(shape, scheme, seed), scheme, ScaleFormat(dtype))
    again = unpack(pack(ours, dtype), scheme)
    assert type(again) is type(ours)
    assert_array_equal(again.values, ours.values)
    assert_array_equal(again.scales, ours.scales)
    assert_array_equal(dequantize(again), dequantize(ours))


@given(SHAPES, SCHEMES, DTYPES)
def test_planned_bytes_are_the_bytes_of_the_tensors(shape, scheme, dtype):
    weight = weight_of(shape, scheme, 0)
    tensors = pack(round_to_nearest("w", weight, scheme, ScaleFormat(dtype)), dtype)
    assert packed_bytes(*weight.shape, scheme, dtype) == sum(tensor.nbytes for tensor in tensors.values())


def test_bytes_by_hand():
    # 64×96: 64·96/2 values + 64·3 scales of 2 bytes + two int64.
    assert packed_bytes(64, 96, Scheme(weights="int4", group_size=32), "float16") == 3072 + 384 + 16
    # 10 columns of 8 bits fill 2.5 words, so 3; 5 scales of 4 bytes.
    assert packed_bytes(5, 10, Scheme(weights="int8"), "float32") == 5 * 3 * 4 + 5 * 4 + 16


def test_the_same_weight_in_the_device_layout_is_the_same_numbers():
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    tensors = pack(
        round_to_nearest("w", weight, Scheme(weights="int4", group_size=32), ScaleFormat("float16")), "float16"
    )
    blocks = unpack(tensors, Scheme(weights="int4", group_size=32))
    device = int4_blocks.pack(blocks)
    # compressed-tensors' int32 words and MatMulNBits' bytes are the same nibbles in the same order.
    assert_array_equal(device.reshape(3, -1), tensors["weight_packed"].numpy().view(np.uint8))
    assert_array_equal(int4_blocks.unpack(device, 64), blocks.values)


def test_bfloat16_weights_are_rounded_from_their_exact_values():
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    scheme = Scheme(weights="int8")
    expected = int8_channels.quantize(weight.float().numpy(), scale_dtype="float16")
    assert_array_equal(round_to_nearest("w", weight, scheme, ScaleFormat("float16")).values, expected.values)


@given(SHAPES, SCHEMES, DTYPES, st.integers(1, 40))
def test_rounding_in_chunks_of_rows_changes_nothing(shape, scheme, dtype, chunk):
    weight = weight_of(shape, scheme, 3)
    whole = round_to_nearest("w", weight, scheme, ScaleFormat(dtype))
    words, error = pack(whole, dtype)["weight_packed"], relative_error(weight, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "CHUNK_VALUES", chunk)
        parts = round_to_nearest("w", weight, scheme, ScaleFormat(dtype))
        assert_array_equal(parts.values, whole.values)
        assert_array_equal(parts.scales, whole.scales)
        assert_array_equal(pack(parts, dtype)["weight_packed"], words)
        assert relative_error(weight, parts) == pytest.approx(error, rel=1e-12)
    exact = weight.double().numpy()
    expected = np.linalg.norm(exact - dequantize(whole).astype(np.float64)) / np.linalg.norm(exact)
    assert error == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_weight_of_zeros_has_no_error():
    zeros = torch.zeros(2, 4)
    assert relative_error(zeros, round_to_nearest("w", zeros, Scheme(weights="int8"), ScaleFormat("float16"))) == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(bad):
    weight = torch.ones(2, 4)
    weight[1, 2] = bad
    with pytest.raises(ModelError, match=r"language_model\.x holds 1 values that are not finite"):
        round_to_nearest("language_model.x", weight, Scheme(weights="int8"), ScaleFormat("float16"))


def test_a_scale_too_large_for_float16_says_what_to_set():
    with pytest.raises(ModelError) as caught:
        round_to_nearest("w", torch.full((1, 4), 1e8), Scheme(weights="int8"), ScaleFormat("float16"))
    assert "--set scale_dtype=float32" in caught.value.fix
    round_to_nearest("w", torch.full((1, 4), 1e8), Scheme(weights="int8"), ScaleFormat("float32"))
