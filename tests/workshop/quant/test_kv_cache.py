"""The INT8 cache: torch equals the contract bit for bit, and the cache does nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config

from stages.artifacts.errors import ModelError
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales
from stages.workshop.quant.kv_cache import Int8KVCache, ObservedCache, check_layers, fake_quantize

CONFIG = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
SCALES = KvScales.of((0.05, 0.03), (0.02, 0.04))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG).eval()


@given(
    arrays(np.float32, st.integers(1, 60), elements=st.floats(-50, 50, width=32)),
    st.floats(2.0**-10, 1, width=32),
)
def test_torch_equals_the_contract(values, scale):
    expected = int8_kv.dequantize(int8_kv.quantize(values, scale), scale)
    assert_array_equal(fake_quantize(torch.from_numpy(values), scale).numpy(), expected)


def test_exact_halves_round_to_even_in_both():
    values = (np.arange(-300, 300) * 0.5 * 0.25).astype(np.float32)
    expected = int8_kv.dequantize(int8_kv.quantize(values, 0.25), 0.25)
    assert_array_equal(fake_quantize(torch.from_numpy(values), 0.25).numpy(), expected)


def test_the_int8_cache_holds_what_a_plain_one_holds_rounded():
    plain, rounded = DynamicCache(), Int8KVCache(SCALES)
    generator = torch.Generator().manual_seed(0)
    for tokens in (3, 1, 2):
        for layer in range(2):
            key, value = (torch.randn(1, 2, tokens, 8, generator=generator) for _ in range(2))
            plain.update(key, value, layer)
            rounded.update(key, value, layer)
    assert rounded.get_seq_length() == 6
    for layer in range(2):
        for held, exact, scale in (
            (rounded.layers[layer].keys, plain.layers[layer].keys, SCALES.keys[layer]),
            (rounded.layers[layer].values, plain.layers[layer].values, SCALES.values[layer]),
        ):
            expected = int8_kv.dequantize(int8_kv.quantize(exact.numpy(), scale), scale)
            assert_array_equal(held.numpy(), expected)


def test_attention_sees_the_rounded_keys(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        plain = model(ids).logits
        fine = model(ids, past_key_values=Int8KVCache(KvScales.of((1e-7,) * 2, (1e-7,) * 2))).logits
        coarse = model(ids, past_key_values=Int8KVCache(KvScales.of((0.5,) * 2, (0.5,) * 2))).logits
    # Scales this fine clip everything, scales this coarse round everything away.
    assert not torch.allclose(plain, fine, atol=1e-3)
    assert not torch.allclose(plain, coarse, atol=1e-3)


def test_the_observed_cache_changes_nothing_and_sees_the_largest(model):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    plain, observed = DynamicCache(), ObservedCache(2)
    with torch.inference_mode():
        expected = model(ids, past_key_values=plain).logits
        # In two pieces: the largest is over all of them.
        model(ids[:, :2], past_key_values=observed)
        torch.testing.assert_close(model(ids[:, 2:], past_key_values=observed).logits, expected[:, 2:])
    keys, values = observed.largest()
    for layer in range(2):
        assert keys[layer] == pytest.approx(float(plain.layers[layer].keys.abs().max()), rel=1e-6)
        assert values[layer] == pytest.approx(float(plain.layers[layer].values.abs().max()), rel=1e-6)


def test_fewer_scales_than_layers_never_run_silently(model):
    with pytest.raises((IndexError, ValueError, TypeError)):
        model(torch.tensor([[5, 6]]), past_key_values=Int8KVCache(KvScales.of((0.1,), (0.1,))))


def test_sliding_layers_are_refused():
    config = Qwen2Config(num_hidden_layers=2, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ModelError, match="sliding_attention") as caught:
        check_layers(config)
    assert "--kv float32" in caught.value.fix
    assert check_layers(CONFIG) == 2


def test_scales_of_channels_round_each_by_its_own():
    generator = torch.Generator().manual_seed(3)
    keys, values = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(2))
    steps = (np.arange(8) + 1).astype(np.float32) / 64
    cache = Int8KVCache(KvScales.of([tuple(steps.tolist())], [0.03]))
    held_keys, held_values = cache.update(keys, values, 0)
    for head in range(2):
        for channel in range(4):
            scale = float(steps[4 * head + channel])
            expected = int8_kv.dequantize(int8_kv.quantize(keys[0, head, :, channel].numpy(), scale), scale)
            assert_array_equal(held_keys[0, head, :, channel].numpy(), expected)
    assert_array_equal(held_values.numpy(), int8_kv.dequantize(int8_kv.quantize(values.numpy(), 0.03), 0.03))


def test_compact_prefill_sees_new_floats_and_old_integers():
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randn(1, 2, 3, 8, generator=generator) for _ in range(2))
    cache = Int8KVCache(KvScales.of([0.05], [0.05]))
    cache.update(first, first, 0)
    with cache.compact():
        keys, _ = cache.update(second, second, 0)
    assert torch.equal(keys[..., 3:, :], second)
    assert torch.equal(keys[..., :3, :], fake_quantize(first, 0.05))
    later, _ = cache.update(first, first, 0)
    assert torch.equal(later[..., 3:6, :], fake_quantize(second, 0.05))
