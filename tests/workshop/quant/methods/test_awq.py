"""AWQ's scales: never worse than rounding alone, also where heads share a value and so its scales."""

import pytest
import torch

from stages.workshop.quant.methods.awq import search_scales
from stages.workshop.quant.methods.folding import FoldPoint, fold, shared_by_heads
from stages.workshop.quant.methods.settings import AwqSettings
from stages.workshop.quant.packed import ScaleFormat, dequantize, round_to_nearest
from stages.workshop.quant.policy import Scheme

HEADS = (8, 2)
SIZE = 8
SCHEME = Scheme(weights="int4", group_size=32)
FREE = ScaleFormat("float16")


class Attention(torch.nn.Module):
    """Values and output, as a decoder layer has them."""

    def __init__(self, generator):
        super().__init__()
        self.v_proj = torch.nn.Linear(32, HEADS[1] * SIZE)
        self.o_proj = torch.nn.Linear(HEADS[0] * SIZE, 48, bias=False)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def inputs_of_output(self, x, mixes):
        """Every head weighs the values of all positions in its own way: [R, heads·D]."""
        values = self.v_proj(x).reshape(len(x), HEADS[1], SIZE)
        wide = values.repeat_interleave(HEADS[0] // HEADS[1], dim=1)
        return torch.einsum("hrs,shd->rhd", mixes, wide).flatten(1)


def lost(weight, inputs, scales):
    rounded = torch.from_numpy(dequantize(round_to_nearest("w", weight * scales, SCHEME, FREE)))
    return float((inputs @ (weight - rounded / scales).T).double().square().sum())


@pytest.mark.parametrize("seed", range(4))
def test_scales_that_folding_moves_are_those_that_were_tried(seed):
    generator = torch.Generator().manual_seed(seed)
    layer = Attention(generator)
    x = torch.randn(64, 32, generator=generator)
    # Heads of one group see very different strengths, so that their own best scales part.
    mixes = torch.randn(HEADS[0], 64, 64, generator=generator) * torch.logspace(-2, 1, HEADS[0])[:, None, None]
    with torch.no_grad():
        inputs = layer.inputs_of_output(x, mixes)
        before, weight = layer.o_proj(inputs), layer.o_proj.weight.clone()
        found = search_scales([(weight, SCHEME)], inputs, FREE, AwqSettings(), HEADS)
        moved = fold(layer, FoldPoint("v_proj", ("o_proj",), HEADS), found, torch.float32)
        assert torch.equal(moved, found)
        after = layer.o_proj(layer.inputs_of_output(x, mixes))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert lost(weight, inputs, moved) <= lost(weight, inputs, torch.ones_like(found))


def test_shared_scales_are_the_largest_of_a_group():
    scales = torch.arange(24.0)  # 6 heads of 4, 2 groups
    expected = torch.cat([torch.arange(8.0, 12).repeat(3), torch.arange(20.0, 24).repeat(3)])
    assert torch.equal(shared_by_heads(scales, (6, 2)), expected)
    assert torch.equal(shared_by_heads(scales, None), scales)
