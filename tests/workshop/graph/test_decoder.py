"""decoder.onnx against transformers' own classes, over every kind of model, weight and cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from stages.artifacts.errors import ModelError, ProblemsError
from stages.device.contract import names
from stages.workshop.graph.decoder_shape import decoder_shape
from stages.workshop.quant.kv_cache import Int8KVCache

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# In an INT8 cache a value near the middle between two integers may be rounded either way: one step of one number.
TOLERANCE = {"float32": 1e-5, "int8": 2e-3}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}


def llama(**changes: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))


def qwen2(**changes: Any) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(**{**SIZES, **changes}))


def qwen3(**changes: Any) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**{**SIZES, "head_dim": 16, **changes}))


def smollm3(**changes: Any) -> SmolLM3ForCausalLM:
    special = {"no_rope_layer_interval": 2, "pad_token_id": 0}
    return SmolLM3ForCausalLM(SmolLM3Config(**{**SIZES, **special, **changes}))


MODELS: dict[str, Callable[[], Any]] = {
    "grouped heads": llama,
    "one head each, tied": lambda: llama(num_key_value_heads=4, tie_word_embeddings=True),
    "one shared head": lambda: llama(num_key_value_heads=1),
    "head size 8: rotary outside": lambda: llama(num_attention_heads=8, num_key_value_heads=4),
    "head size 24: rotary outside": lambda: llama(head_dim=24),
    "biases everywhere": lambda: llama(attention_bias=True, mlp_bias=True),
    "qwen2": qwen2,
    "qwen2, head size 8": lambda: qwen2(num_attention_heads=8),
    "qwen3": qwen3,
    "qwen3, head size 24, tied": lambda: qwen3(head_dim=24, tie_word_embeddings=True),
    "smollm3: the second layer knows no positions": smollm3,
    "smollm3, head size 8": lambda: smollm3(num_attention_heads=8),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "theta": lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "linear scaling": lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
    "llama3 scaling": lambda: llama(rope_parameters=LLAMA3),
    "yarn scaling": lambda: llama(rope_parameters=YARN),
}


def full_forward(decoder: Any, embeds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of every position [L, V], from one uncached pass (a simulated INT8 cache sees it whole)."""
    cache = DynamicCache() if decoder.kv_scales is None else Int8KVCache(decoder.kv_scales)
    with torch.no_grad():
        output = decoder.model(inputs_embeds=torch.from_numpy(embeds), past_key_values=cache, use_cache=True)
    return output.logits[0].numpy()


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> None:
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("kv", ["float32", "int8"])
@pytest.mark.parametrize("form", ["float", "int4", "int8"])
@pytest.mark.parametrize("kind", MODELS)
def test_pieces_and_steps_equal_one_forward_in_torch(kind: str, form: str, kv: str, export_decoder: Any) -> None:
    torch.manual_seed(0)
    decoder = export_decoder(MODELS[kind](), form, kv)
    embeds = decoder.embeds(40)
    lengths = [13, 1, 20, 1, 1, 1, 3]
    expected = full_forward(decoder, embeds)[np.cumsum(lengths) - 1]
    assert_same(decoder.bound(48).feed_in(embeds, lengths), expected, TOLERANCE[kv])


@pytest.mark.parametrize("kv", ["int8", "int8 by channel"])
@pytest.mark.parametrize("kind", ["grouped heads", "head size 8: rotary outside", "qwen2"])
def test_the_int8_cache_holds_the_contracts_integers(kind: str, kv: str, export_decoder: Any) -> None:
    torch.manual_seed(0)
    decoder = export_decoder(MODELS[kind](), "float", kv)
    embeds, bound = decoder.embeds(40), decoder.bound(40)
    bound.feed_in(embeds, [39, 1])
    cache = Int8KVCache(decoder.kv_scales)
    with torch.no_grad():
        decoder.model(inputs_embeds=torch.from_numpy(embeds), past_key_values=cache, use_cache=True)
    for layer, kept in enumerate(cache.layers):
        key_scale, value_scale = decoder.kv_scales.arrays(layer, kept.keys.shape[1])
        pairs = ((names.past_key(layer), kept.keys, key_scale), (names.past_value(layer), kept.values, value_scale))
        for name, tensor, scale in pairs:
            integers = np.rint(tensor.numpy() / scale)
            difference = np.abs(bound.cache[name] - integers)
            # A value within a rounding error of the middle between two integers may go either way.
            assert difference.max() <= 1
            assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("kv", ["float32", "int8"])
@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
def test_chunks_of_128_equal_one_shot(length: int, kv: str, export_decoder: Any) -> None:
    torch.manual_seed(0)
    decoder = export_decoder(llama(), "int4", kv)
    embeds = decoder.embeds(length)
    chunks = [128] * (length // 128) + ([length % 128] if length % 128 else [])
    one_shot = decoder.bound().feed(embeds)
    assert_same(decoder.bound().feed_in(embeds, chunks)[-1], one_shot, TOLERANCE[kv])
    assert_same(one_shot, full_forward(decoder, embeds)[-1], TOLERANCE[kv])


def test_a_longer_buffer_changes_nothing(export_decoder: Any) -> None:
    decoder = export_decoder(llama(), "int4", "int8")
    embeds = decoder.embeds(20)
    np.testing.assert_array_equal(decoder.bound(20).feed(embeds), decoder.bound(400).feed(embeds))


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_int8_activations_cost_what_rounding_costs(form: str, export_decoder: Any) -> None:
    """Not exact, and not worse than INT8 activations should be: a few thousandths per product."""
    torch.manual_seed(0)
    decoder = export_decoder(llama(), form, "float32", "int8")
    embeds = decoder.embeds(40)
    expected = full_forward(decoder, embeds)[-1]
    error = np.linalg.norm(decoder.bound().feed(embeds) - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 3e-2


def test_the_cache_beyond_the_context_is_not_read(export_decoder: Any) -> None:
    decoder = export_decoder(llama(), "float", "int8")
    embeds = decoder.embeds(9)
    clean, dirty = decoder.bound(16), decoder.bound(16)
    for buffer in dirty.cache.values():
        buffer[:] = 99
    np.testing.assert_array_equal(clean.feed(embeds), dirty.feed(embeds))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 12}, "head_dim"),
    ],
)
def test_what_the_graph_cannot_express_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        decoder_shape(LlamaConfig(**{**SIZES, **changes}))
    assert words in caught.value.what
    assert "cannot express" in caught.value.why


def test_an_unknown_architecture_names_the_known_ones() -> None:
    from transformers import GPT2Config

    with pytest.raises(ModelError) as caught:
        decoder_shape(GPT2Config())
    assert "'gpt2'" in caught.value.what
    assert "llama, mistral, qwen2, qwen3, smollm3" in caught.value.fix
    assert "without pictures" in caught.value.fix
    assert "onnxruntime_genai.models.builder" in caught.value.fix


def test_a_sliding_window_is_refused_and_all_problems_come_together() -> None:
    with pytest.raises(ProblemsError) as caught:
        decoder_shape(MistralConfig(**SIZES, sliding_window=16, hidden_act="gelu"))
    assert len(caught.value.problems) == 2
    assert any("sliding_window" in problem.what for problem in caught.value.problems)
