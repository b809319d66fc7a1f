"""Rounding in torch is the contract's, bit for bit; and it happens where a model's Linears take their inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from stages.device.contract import activations
from stages.workshop.quant.input_rounding import (
    InputRounding,
    relative_errors,
    round_block_parts,
    round_blocks,
    round_rows,
    rounded_inputs,
)

# Zeros, ties, outliers and tiny numbers all occur.
ROWS = st.tuples(st.integers(1, 3), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1e4, 1e4, width=32))
)


def outliers(columns: int) -> np.ndarray:
    """Rows with one channel 60 times as large, a zero row, a row of ties, one of subnormal numbers."""
    x = np.random.default_rng(columns).standard_normal((6, columns)).astype(np.float32)
    x[:, columns // 2] *= 60
    x[1] = 0
    x[2] = np.float32(63.5)
    x[2, 0] = 127
    x[3] *= np.float32(1e-39)
    return x


def torch_of(function, x, *arguments):
    return function(torch.from_numpy(x.copy()), *arguments).numpy()


@given(ROWS, st.sampled_from(["int8", "int16"]))
def test_rows_are_the_contracts(x, precision):
    expected = activations.unround(activations.round_rows(x, precision))
    np.testing.assert_array_equal(torch_of(round_rows, x, precision), expected)


@given(ROWS, st.sampled_from([2, 16, 32]))
def test_blocks_are_the_contracts(x, block):
    np.testing.assert_array_equal(torch_of(round_blocks, x, block), activations.round_blocks(x, block))
    np.testing.assert_array_equal(torch_of(round_block_parts, x, block), activations.round_block_parts(x, block))


@pytest.mark.parametrize("columns", [128, 300, 2304])
def test_rows_with_outliers_are_the_contracts(columns):
    x = outliers(columns)
    for precision in ("int8", "int16"):
        expected = activations.unround(activations.round_rows(x, precision))
        np.testing.assert_array_equal(torch_of(round_rows, x, precision), expected)
    np.testing.assert_array_equal(torch_of(round_blocks, x, 128), activations.round_blocks(x, 128))
    np.testing.assert_array_equal(torch_of(round_block_parts, x, 128), activations.round_block_parts(x, 128))


def test_bfloat16_is_rounded_in_float32_and_handed_back():
    x = torch.from_numpy(outliers(64)).bfloat16()
    found = round_rows(x, "int16")
    assert found.dtype == torch.bfloat16
    expected = activations.unround(activations.round_rows(x.float().numpy(), "int16"))
    torch.testing.assert_close(found, torch.from_numpy(expected).bfloat16(), rtol=0, atol=0)


def test_the_error_of_a_token_is_relative_and_zero_tokens_have_none():
    x = torch.from_numpy(outliers(300))
    for precision in ("int8", "int16"):
        rounded = activations.unround(activations.round_rows(x.numpy(), precision))
        right = np.linalg.norm(x.numpy(), axis=-1)
        with np.errstate(invalid="ignore"):
            expected = np.linalg.norm(x.numpy() - rounded, axis=-1) / right
        np.testing.assert_allclose(relative_errors(x, precision).numpy(), expected[right > 0], rtol=1e-5)
    assert relative_errors(x, "int8").max() > 100 * relative_errors(x, "int16").max()


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_calls_of_one_and_of_several_tokens(precision):
    """Decoding rounds per block as MatMulNBits does; prefill per token, where the weights are expanded."""
    x = torch.from_numpy(outliers(300))[None]  # [1, T, K]
    by_block = round_blocks if precision == "int8" else round_block_parts
    one = x[:, :1]
    assert torch.equal(InputRounding(precision)(x), round_rows(x, precision))
    assert torch.equal(InputRounding(precision)(one), round_rows(one, precision))
    assert torch.equal(InputRounding(precision, 32)(x), by_block(x, 32))
    assert torch.equal(InputRounding(precision, 32, compact=True)(x), round_rows(x, precision))
    assert torch.equal(InputRounding(precision, 32, compact=True)(one), by_block(one, 32))


def test_a_model_rounds_while_the_block_lasts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 8))
    x = torch.randn(1, 5, 64)
    with torch.no_grad():
        plain = model(x)
        with rounded_inputs(model, {"1": InputRounding("int8")}):
            rounded = model(x)
        torch.testing.assert_close(rounded, model[1](round_rows(model[0](x), "int8")), rtol=0, atol=0)
        assert not torch.equal(plain, rounded)
        assert torch.equal(model(x), plain)


def test_half_precision_is_the_contracts_and_saturates() -> None:
    x = (np.random.default_rng(2).standard_normal((1, 6, 40)) * 10.0 ** np.arange(-6, 6).repeat(20)[:40]).astype(
        np.float32
    )
    x[0, 0, :3] = [70000.0, -1e30, 65519.0]
    found = InputRounding("float16")(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(found, activations.round_half(x))
    assert found[0, 0, :2].tolist() == [65504.0, -65504.0]
    normal = np.abs(x) > 1e-4
    beyond = np.abs(x) > 65504
    inside = normal & ~beyond
    assert (np.abs(found - x)[inside] <= np.abs(x)[inside] * 2.0**-11).all()
