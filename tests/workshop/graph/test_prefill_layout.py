"""A prefill.json that was changed, or that belongs to another model, is refused when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.prefill_layout import PREFILL_DATA_FILE, PREFILL_FILE, read_prefill_layout
from stages.device.runtime.prefill import load_prefill
from stages.workshop.graph.decoder import DecoderEmitter, DecoderOptions
from stages.workshop.graph.decoder_shape import decoder_shape
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.prefill import write_prefill
from stages.workshop.graph.rotary import rotary_tables

SPEC = DecoderSpec(
    num_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=16,
    hidden_size=64,
    vocab_size=80,
    max_context=128,
    kv_dtype="float32",
)


@pytest.fixture
def folder(tmp_path: Path, lively_model: Callable[[nn.Module], nn.Module], torch_weights: Any) -> Path:
    """decoder.onnx and its prefill of a tiny model with INT8 weights and INT16 activations."""
    model = lively_model(
        LlamaForCausalLM(
            LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, vocab_size=80, num_attention_heads=4)
        )
    )
    shape, tables = decoder_shape(model.config), rotary_tables(model.config, 128)
    weights = torch_weights(model, "int8", "language_model.", "int16")
    with GraphEmitter(tmp_path, names.DECODER_FILE, "/model") as emitter:
        decoder = DecoderEmitter(emitter, weights, shape, DecoderOptions(tables))
        list(decoder.emit())
        emitter.save()
    assert write_prefill(tmp_path, shape, tables, decoder.activations) is not None
    assert load_prefill(tmp_path, SPEC, threads=1) is not None
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"file":"decoder.onnx.data"', '"file":"../decoder.onnx.data"', "bare name"),
        ('"graph":"prefill-0.onnx"', '"graph":"/etc/passwd"', "bare name"),
        ('"schema_version":1', '"schema_version":2', "schema_version"),
        ('"dtype":"int8"', '"dtype":"object"', "dtype"),
        ('"offset":', '"offset":64', "bytes; a weight lies at"),
    ],
)
def test_a_changed_layout_is_refused(old: str, new: str, words: str, folder: Path) -> None:
    path = folder / PREFILL_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=words) as caught:
        load_prefill(folder, SPEC, threads=1)
    assert "bluelm export" in str(caught.value.fix)


def edited(folder: Path, change: Callable[[list[Any]], Any]) -> None:
    """Changes the layers of prefill.json."""
    path = folder / PREFILL_FILE
    layout = json.loads(path.read_text())
    change(layout["layers"])
    path.write_text(json.dumps(layout))


NORM = "input_layernorm.weight"
ATTACKS: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "a Linear less": (lambda layers: layers[1]["linears"].pop("down"), r"the input down\.scales is unknown"),
    "a Linear more": (
        lambda layers: layers[1]["linears"].update(more=layers[1]["linears"]["down"]),
        r"the input more\.weight is missing",
    ),
    "a norm less": (lambda layers: layers[0]["norms"].pop(NORM), rf"the input {NORM} is unknown"),
    "a norm more": (
        lambda layers: layers[0]["norms"].update(more=layers[0]["norms"][NORM]),
        "the input more is missing",
    ),
    "a norm in the place of the positions": (
        lambda layers: layers[0]["norms"].update(hidden_states=layers[0]["norms"][NORM]),
        "hidden_states is no name for a norm",
    ),
    "a norm in the place of a weight": (
        lambda layers: layers[0]["norms"].update({"down.scales": layers[0]["norms"][NORM]}),
        r"down\.scales is no name for a norm",
    ),
    "a norm of another shape": (
        lambda layers: layers[0]["norms"][NORM].update(shape=[32]),
        rf"the input {NORM} has 64 at axis 0, where 32",
    ),
    "a norm of another type": (
        lambda layers: layers[0]["norms"][NORM].update(dtype="int32"),
        rf"the input {NORM} is tensor\(float\), not tensor\(int32\)",
    ),
    "a Linear of another shape": (
        lambda layers: layers[0]["linears"].update(o=layers[0]["linears"]["down"]),
        r"the input o\.weight has 64 at axis 0, where 96",
    ),
    "the last layer first": (lambda layers: layers.__setitem__(0, layers[-1]), "the input past_key is missing"),
    "the first layer last": (lambda layers: layers.__setitem__(-1, layers[0]), "the input past_key is unknown"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_layout_that_does_not_fit_the_graphs_is_refused(attack: str, folder: Path) -> None:
    change, words = ATTACKS[attack]
    edited(folder, change)
    with pytest.raises(ModelError, match=words) as caught:
        load_prefill(folder, SPEC, threads=1)
    assert PREFILL_FILE in caught.value.what + caught.value.why
    assert "bluelm export" in str(caught.value.fix)


@pytest.mark.parametrize(
    "change", [{"num_key_value_heads": 2}, {"head_dim": 8}, {"hidden_size": 32}], ids=lambda change: next(iter(change))
)
def test_another_decoder_is_refused(change: dict[str, int], folder: Path) -> None:
    with pytest.raises(ModelError, match="is expected") as caught:
        load_prefill(folder, SPEC.model_copy(update=change))
    assert PREFILL_FILE in caught.value.why


def test_another_number_of_layers_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="3 layers, the model has 4"):
        read_prefill_layout(folder, 4)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / PREFILL_DATA_FILE).unlink()
    with pytest.raises(ModelError, match=r"prefill\.data"):
        load_prefill(folder, SPEC, threads=1)
