"""GPTQ against the algorithm as its paper writes it, in plain numpy, and against what it must never be worse than."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.workshop.quant.methods.gptq import quantize
from stages.workshop.quant.methods.scale_search import best_scales, row_grid
from stages.workshop.quant.methods.settings import GptqSettings
from stages.workshop.quant.packed import ScaleFormat, dequantize, round_to_nearest
from stages.workshop.quant.policy import Scheme

FREE, GRID = ScaleFormat("float16"), ScaleFormat("float16", True)
INT4, INT8 = Scheme(weights="int4", group_size=16), Scheme(weights="int8")


def drawn(rows=12, columns=64, inputs=200, seed=3):
    """A weight, and inputs whose columns differ in strength and depend on each other."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    mixed = random.standard_normal((inputs, columns)) @ random.standard_normal((columns, columns)) / columns**0.5
    x = (mixed * np.exp(random.standard_normal(columns))).astype(np.float32)
    return torch.from_numpy(weight), torch.from_numpy(x)


def textbook(weight, hessian, scales_of, smallest, largest, damping, order):
    """Algorithm 1 with blocks of one column: the inverse is updated by eliminating each column, no Cholesky factor."""
    w = weight.astype(np.float64)[:, order]
    h = hessian.astype(np.float64)[np.ix_(order, order)]
    h = h + damping * np.mean(np.diag(h)) * np.eye(len(h))
    inverse = np.linalg.inv(h)
    values = np.zeros_like(w)
    for column in range(w.shape[1]):
        scale = scales_of(order[column], w, column)
        values[:, column] = np.clip(np.rint(w[:, column] / scale), smallest, largest)
        error = (w[:, column] - values[:, column] * scale) / inverse[column, column]
        w -= np.outer(error, inverse[column])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    back = np.empty_like(values)
    back[:, order] = values
    return back


@pytest.mark.parametrize("scales", [FREE, GRID])
@pytest.mark.parametrize("columns", [64, 300, 172])
def test_values_are_those_of_the_textbook(scales, columns):
    weight, x = drawn(columns=columns, inputs=3 * columns)
    hessian = x.T @ x
    ours = quantize("w", weight, hessian, INT4, scales, GptqSettings(damping=0.01, act_order=True))
    order = np.argsort(-np.diag(hessian.numpy()), kind="stable")
    theirs = textbook(
        weight.numpy(), hessian.numpy(), lambda column, *_: ours.scales[:, column // 16], -8, 7, 0.01, order
    )
    assert_array_equal(ours.values, theirs)


@pytest.mark.parametrize("scales", [FREE, GRID])
def test_in_the_order_of_columns_a_block_gets_its_scale_when_it_is_reached(scales):
    weight, x = drawn(columns=160, inputs=500)
    hessian = x.T @ x
    ours = quantize("w", weight, hessian, INT4, scales, GptqSettings(act_order=False))
    grid = row_grid(weight, scales)
    importance = hessian.diagonal() / hessian.diagonal().mean() + 1e-6
    held = {}

    def scales_of(column, w, _):
        if column % 16 == 0:
            part = torch.from_numpy(w[:, column : column + 16].astype(np.float32))
            held[column] = best_scales(part, 16, scales, importance[column : column + 16], grid)[:, 0].numpy()
        return held[column - column % 16]

    theirs = textbook(weight.numpy(), hessian.numpy(), scales_of, -8, 7, 0.01, np.arange(160))
    assert_array_equal(ours.values, theirs)
    assert_array_equal(ours.scales, np.stack(list(held.values()), axis=1))


def test_int8_rows_keep_the_contracts_scales():
    weight, x = drawn()
    hessian = x.T @ x
    ours = quantize("w", weight, hessian, INT8, FREE, GptqSettings())
    order = np.argsort(-np.diag(hessian.numpy()), kind="stable")
    scales = int8_channels.channel_scales(weight.numpy(), "float16")
    assert_array_equal(ours.scales, scales)
    assert_array_equal(
        ours.values, textbook(weight.numpy(), hessian.numpy(), lambda *_: scales, -127, 127, 0.01, order)
    )


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("scales", [FREE, GRID])
def test_outputs_are_nearer_than_those_of_rounding(scales, act_order):
    for seed in range(5):
        weight, x = drawn(columns=96, seed=seed)
        plain = round_to_nearest("w", weight, INT4, scales)
        better = quantize("w", weight, x.T @ x, INT4, scales, GptqSettings(act_order=act_order))
        errors = [float(((weight - torch.from_numpy(dequantize(q))) @ x.T).norm()) for q in (better, plain)]
        assert errors[0] < 0.8 * errors[1]


def test_its_scales_can_be_expanded_to_int8():
    weight, x = drawn(columns=128)
    for act_order in (True, False):
        ours = quantize("w", weight, x.T @ x, INT4, GRID, GptqSettings(act_order=act_order))
        levels = int4_blocks.split_scales(ours.scales)
        assert levels is not None
        whole = int4_blocks.expand(ours.values, levels.steps, 16).astype(np.float32) * levels.channel[:, None]
        assert_array_equal(whole, dequantize(ours))


def test_independent_inputs_of_one_strength_leave_nothing_to_hand_on():
    weight, _ = drawn()
    ours = quantize("w", weight, torch.eye(64), INT4, GRID, GptqSettings())
    wide = np.repeat(ours.scales, 16, axis=1)
    assert_array_equal(ours.values, np.clip(np.rint(weight.numpy() / wide), -8, 7))


def test_columns_that_were_always_zero_are_rounded_to_the_nearest():
    weight, x = drawn()
    x[:, 10:20] = 0
    ours = quantize("w", weight, x.T @ x, INT4, GRID, GptqSettings())
    wide = np.repeat(ours.scales, 16, axis=1)
    nearest = np.clip(np.rint(weight.numpy() / wide), -8, 7)
    assert_array_equal(ours.values[:, 10:20], nearest[:, 10:20])
    assert np.isfinite(dequantize(ours)).all()


def test_fewer_inputs_than_columns_still_work():
    weight, x = drawn(columns=96, inputs=5)
    ours = quantize("w", weight, x.T @ x, INT4, GRID, GptqSettings())
    plain = round_to_nearest("w", weight, INT4, GRID)
    errors = [float(((weight - torch.from_numpy(dequantize(q))) @ x.T).norm()) for q in (ours, plain)]
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize(("value", "message"), [(0.0, "all zero"), (torch.inf, "not finite")])
def test_inputs_that_say_nothing_are_named(value, message):
    weight, _ = drawn()
    with pytest.raises(ModelError, match=message) as caught:
        quantize("language_model.x", weight, torch.full((64, 64), value), INT4, GRID, GptqSettings())
    assert "language_model.x" in caught.value.what
    assert "method: rtn" in caught.value.fix


@pytest.mark.parametrize("scales", [FREE, GRID])
def test_the_search_never_loses_to_the_contracts_scales(scales):
    weight, x = drawn(columns=80)
    importance = x.square().mean(dim=0)
    ours = best_scales(weight, 16, scales, importance, row_grid(weight, scales)).numpy()
    theirs = int4_blocks.block_scales(weight.numpy(), 16, "float16", two_level=scales.two_level)

    def cost(found):
        off = weight.numpy() - int4_blocks.dequantize(int4_blocks.quantize(weight.numpy(), 16, scales=found))
        return (off**2 * importance.numpy()).reshape(12, -1, 16).sum(axis=-1)

    assert (cost(ours) <= cost(theirs) * (1 + 1e-6)).all()
    assert cost(ours).sum() < 0.97 * cost(theirs).sum()
