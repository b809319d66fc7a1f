"""Random weights have the forms of the rules, scales that prefill can expand, and a tied head's are the embedding's."""

from __future__ import annotations

import numpy as np
import pytest

from stages.device.contract import int4_blocks
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD
from stages.workshop.graph.matmul_forms import form_of
from stages.workshop.graph.random_weights import RandomWeights
from stages.workshop.graph.weight_source import with_activations
from stages.workshop.quant.activation_policy import FIXED_POLICIES, Policy

LAYER = "language_model.model.layers.0"
UP, DOWN, TOWER = f"{LAYER}.mlp.up_proj", f"{LAYER}.mlp.down_proj", "vision_tower.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize(
    ("policy", "forms"),
    [
        ("paper", ("nbits16", "nbits16", "nbits16", "a16")),
        ("mix", ("nbits8", "nbits16", "nbits8", "a8")),
        ("int8", ("nbits8", "nbits8", "nbits8", "a8")),
        ("float", ("nbits", "nbits", "nbits", "nbits")),
    ],
)
def test_a_policy_gives_forms(policy: Policy, forms: tuple[str, ...]) -> None:
    weights = RandomWeights(activations=FIXED_POLICIES[policy])
    linears = [weights.linear(name, 8, 256, bias=False) for name in (UP, DOWN, HEAD, TOWER)]
    assert tuple(map(form_of, linears)) == forms
    assert isinstance(linears[3].weight, Int8Channels)
    exact = with_activations(weights, "float")
    assert form_of(exact.linear(UP, 8, 256, bias=False)) == "nbits"
    assert with_activations(weights, "policy") is weights


def test_int4_lies_on_a_grid_and_outputs_are_as_large_as_inputs() -> None:
    linear = RandomWeights().linear(UP, 512, 768, bias=False)
    weight = linear.weight
    assert isinstance(weight, Int4Blocks)
    assert weight.block == 128
    split = int4_blocks.split_scales(weight.scales)
    assert split is not None
    whole = int4_blocks.expand(weight.values, split.steps, 128).astype(np.float32) * split.channel[:, None]
    np.testing.assert_array_equal(whole, int4_blocks.dequantize(weight))
    np.testing.assert_array_equal(weight.scales.astype(np.float16).astype(np.float32), weight.scales)
    x = np.random.default_rng(0).standard_normal((32, 768)).astype(np.float32)
    assert 0.8 < (x @ linear.dequantized().T).std() < 1.25


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_has_the_embeddings_numbers(tied: bool) -> None:
    weights = RandomWeights(tied=tied)
    head, table = (weights.linear(name, 40, 128, bias=False).weight for name in (HEAD, EMBEDDING))
    assert isinstance(head, Int4Blocks)
    assert isinstance(table, Int4Blocks)
    assert np.array_equal(head.values, table.values) == tied
    assert np.array_equal(head.scales, table.scales) == tied
