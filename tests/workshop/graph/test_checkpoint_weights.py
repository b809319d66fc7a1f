"""Weights read from folders: the very integers of the file, and what transformers itself makes of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.artifacts.errors import ModelError
from stages.artifacts.events import result_of
from stages.device.contract import int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD, CheckpointWeights
from stages.workshop.graph.weight_source import WeightSource
from stages.workshop.model.checkpoint import load_model
from stages.workshop.quant.policy import Rule, Scheme

PROJECTION = "language_model.model.layers.1.self_attn.q_proj"
RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.model.embed_tokens", weights="int4", group_size=16),
    Rule(modules="language_model.lm_head", weights="int8"),
)


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_model: Any) -> Path:
    folder = tmp_path / "checkpoint"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def quantized(checkpoint: Path) -> Path:
    folder = checkpoint.with_name("quantized")
    result_of(quantize(QuantizeConfig(rules=RULES, kv="float32"), checkpoint, None, folder))
    return folder


def test_a_float_checkpoint_gives_its_parameters(checkpoint: Path) -> None:
    weights: WeightSource = CheckpointWeights(checkpoint)
    state = load_model(checkpoint).state_dict()
    linear = weights.linear(PROJECTION, 64, 64, bias=False)
    np.testing.assert_array_equal(linear.weight, state[f"{PROJECTION}.weight"].numpy())
    assert linear.bias is None
    part = "vision_tower.encoder.layers.0.mlp.fc1"
    bias = weights.linear(part, 40, 32, bias=True).bias
    np.testing.assert_array_equal(bias, state[f"{part}.bias"].numpy())
    name = "language_model.model.norm.weight"
    np.testing.assert_array_equal(weights.tensor(name, (64,)), state[name].numpy())


def test_a_tied_head_is_the_embedding(checkpoint: Path) -> None:
    weights = CheckpointWeights(checkpoint)
    head, table = (weights.linear(name, 97, 64, bias=False).weight for name in (HEAD, EMBEDDING))
    np.testing.assert_array_equal(head, table)


def test_packed_linears_are_what_transformers_makes_of_the_folder(quantized: Path) -> None:
    """Two ways to the same numbers: our integers times our scales, and compressed-tensors inside transformers."""
    weights, model = CheckpointWeights(quantized), load_model(quantized)
    with torch.no_grad():
        model(torch.tensor([[1]]))  # The library unpacks in the first forward pass.
    kinds = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != HEAD:
            linear = weights.linear(name, module.out_features, module.in_features, bias=module.bias is not None)
            kinds.add(type(linear.weight))
            np.testing.assert_array_equal(linear.dequantized(), module.weight.detach().numpy())
    assert kinds == {Int4Blocks, Int8Channels}


def test_embedding_and_tied_head_are_rounded_here_each_in_its_own_way(quantized: Path, checkpoint: Path) -> None:
    table = load_model(checkpoint).get_input_embeddings().weight.detach().numpy()
    weights = CheckpointWeights(quantized)
    embedding = weights.linear(EMBEDDING, 97, 64, bias=False).weight
    head = weights.linear(HEAD, 97, 64, bias=False).weight
    assert isinstance(embedding, Int4Blocks)
    assert embedding.block == 16
    assert isinstance(head, Int8Channels)
    expected = int8_channels.quantize(table, scale_dtype="float16")
    np.testing.assert_array_equal(head.values, expected.values)
    np.testing.assert_array_equal(head.scales, expected.scales)


def test_the_caller_may_choose_another_form_for_the_embedding(quantized: Path, checkpoint: Path) -> None:
    eight = CheckpointWeights(checkpoint, {EMBEDDING: Scheme(weights="int8")})
    assert isinstance(eight.linear(EMBEDDING, 97, 64, bias=False).weight, Int8Channels)
    plain = CheckpointWeights(quantized, {EMBEDDING: Scheme(weights="float")}).linear(EMBEDDING, 97, 64, bias=False)
    assert isinstance(plain.weight, np.ndarray)


def test_a_missing_weight_is_named(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    del tensors[f"{PROJECTION}.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        CheckpointWeights(checkpoint).linear(PROJECTION, 64, 64, bias=False)
    assert f"no weight {PROJECTION}.weight" in caught.value.what
    assert "bluelm adopt" in caught.value.fix


@pytest.mark.parametrize("folder", ["checkpoint", "quantized"])
def test_another_shape_than_the_configurations_is_named(folder: str, request: pytest.FixtureRequest) -> None:
    weights = CheckpointWeights(request.getfixturevalue(folder))
    with pytest.raises(ModelError) as caught:
        weights.linear(PROJECTION, 64, 96, bias=False)
    assert "[64, 64]" in caught.value.what
    assert "[64, 96]" in caught.value.what


def test_a_foreign_quantization_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        CheckpointWeights(checkpoint)
    assert "bluelm quantize" in caught.value.fix


def test_groups_that_no_kernel_takes_are_refused_at_once(checkpoint: Path) -> None:
    folder = checkpoint.with_name("groups-of-8")
    rules = (Rule(modules="language_model.model.layers.*", weights="int4", group_size=8),)
    result_of(quantize(QuantizeConfig(rules=rules, kv="float32"), checkpoint, None, folder))
    with pytest.raises(ModelError) as caught:
        CheckpointWeights(folder)
    assert "groups of 8" in caught.value.what
    assert "16, 32, 64, 128, 256" in caught.value.why
