"""A quantized folder opens through transformers, and computes what its dequantized weights compute."""

import functools
import json

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationStatus
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache
from transformers.models.siglip.modeling_siglip import SiglipAttention

from stages.artifacts.errors import ModelError
from stages.device.contract import activations, int4_blocks, int8_attention, int8_channels
from stages.device.prompt.messages import user
from stages.workshop.model.checkpoint import load_checkpoint, load_model
from stages.workshop.quant.kv_cache import Int8KVCache
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import load_quantized, simulated_cache


@pytest.fixture(scope="module")
def inputs(checkpoint):
    _, processor = load_checkpoint(checkpoint)
    picture = Image.effect_noise((60, 30), 80).convert("RGB")
    sample = processor.encode_chat([user("What colour is it?", 1)], [picture], add_generation_prompt=True)
    return {
        "input_ids": torch.tensor([sample.input_ids]),
        "pixel_values": torch.from_numpy(sample.pixel_values),
    }


def four_bits(weight, block):
    return int4_blocks.quantize(weight, block, scale_dtype="float16", two_level=True)


def dequantized_by_hand(checkpoint):
    """The float model with every packed weight rounded here, by the names alone."""
    model = load_model(checkpoint)
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        weight = module.weight.detach().numpy()
        if ".layers." in name and name.startswith("language_model"):
            rounded = int4_blocks.dequantize(four_bits(weight, 32))
        else:
            rounded = int8_channels.dequantize(int8_channels.quantize(weight, scale_dtype="float16"))
        module.weight.data = torch.from_numpy(rounded)
    return model


def logits(model, inputs, **kwargs):
    with torch.inference_mode():
        return model(**inputs, **kwargs).logits


def test_from_pretrained_equals_the_dequantized_model(checkpoint, quantized, inputs):
    opened = AutoModelForImageTextToText.from_pretrained(quantized, dtype=torch.float32).eval()
    packed = opened.language_model.model.layers[0].mlp.down_proj
    assert packed.weight_packed.dtype == torch.int32
    assert packed.quantization_status == QuantizationStatus.COMPRESSED
    expected = logits(dequantized_by_hand(checkpoint), inputs)
    torch.testing.assert_close(logits(opened, inputs), expected, rtol=0, atol=1e-5)
    # And the comparison is not blind: rounding did change the logits.
    assert (expected - logits(load_model(checkpoint), inputs)).abs().max() > 1e-3


def round_by_hand(model, precision):
    """Every Linear's inputs through the contract: per token; per block where a layer sees one position, or the head.

    The tower's attention is INT8 where its Linears are.
    """
    by_block = {"int8": activations.round_blocks, "int16": activations.round_block_parts}[precision]

    def look(module, inputs, name):
        x = inputs[0].numpy()
        if "lm_head" in name or (".layers." in name and name.startswith("language_model") and x.shape[1] == 1):
            return (torch.from_numpy(by_block(x, 64 if "lm_head" in name else 32)),)
        return (torch.from_numpy(activations.unround(activations.round_rows(x, precision))),)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(functools.partial(look, name=name))
        if isinstance(module, SiglipAttention) and precision == "int8":
            module.forward = functools.partial(attend_by_hand, module)
    return model


def attend_by_hand(module, hidden_states, **_):
    parts = [part(hidden_states).numpy() for part in (module.q_proj, module.k_proj, module.v_proj)]
    return module.out_proj(torch.from_numpy(int8_attention.attend(*parts, module.num_heads))), None


def exported_by_hand(checkpoint):
    """What the export does to the embedding, the simulation does at once."""
    model = dequantized_by_hand(checkpoint)
    embedding = model.language_model.model.embed_tokens
    rounded = int8_channels.quantize(embedding.weight.detach().numpy(), scale_dtype="float16")
    embedding.weight.data = torch.from_numpy(int8_channels.dequantize(rounded))
    return model


def test_load_quantized_equals_it_too(checkpoint, quantized, inputs):
    model, processor = load_quantized(quantized, exact=True)
    torch.testing.assert_close(logits(model, inputs), logits(exported_by_hand(checkpoint), inputs), rtol=0, atol=1e-5)
    assert processor.tokenizer.vocab_size > 0


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_load_quantized_rounds_the_inputs_of_every_linear(precision, checkpoint, quantize, quantized, inputs):
    rule = json.dumps([{"modules": "*", "activations": precision}])
    folder = quantized if precision == "int16" else quantize(checkpoint, f"activations={rule}")
    model, exact = (load_quantized(folder, exact=exact)[0] for exact in (False, True))
    models = [model, round_by_hand(exported_by_hand(checkpoint), precision), exact]
    caches = [DynamicCache() for _ in models]
    for call in (inputs, {"input_ids": inputs["input_ids"][:, -1:]}):
        outputs = [logits(each, call, past_key_values=cache) for each, cache in zip(models, caches, strict=True)]
        found, expected, unrounded = (values[0, -1] for values in outputs)
        # A sum in another order may round an input the other way, rarely.
        assert (found - expected).abs().max() < (expected - unrounded).abs().max() / 4
        assert (found - expected).abs().median() < 1e-5


def test_every_weight_of_the_folder_is_the_rounded_one(checkpoint, quantized):
    folder, model = QuantizedFolder(quantized), dequantized_by_hand(checkpoint)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            np.testing.assert_array_equal(folder.weight(name), module.weight.detach().numpy())
    untouched = "vision_tower.embeddings.patch_embedding.weight"
    assert torch.equal(folder.tensor(untouched), model.get_parameter(untouched))


def test_generate_fills_an_int8_cache(quantized, inputs):
    model, _ = load_quantized(quantized)
    arguments = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    told = model.generate(**inputs, **arguments, return_dict_in_generate=True)
    assert isinstance(told.past_key_values, Int8KVCache)
    scale = QuantizedFolder(quantized).kv_scales(2).keys[0]
    steps = told.past_key_values.layers[0].keys / scale
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    # The same by hand: greedy, one forward per token, over a simulated cache of our own.
    cache = simulated_cache(quantized, model.config)
    ids, step = inputs["input_ids"], dict(inputs)
    assert model.generation_config.suppress_tokens == [model.config.image_token_id]
    for _ in range(5):
        following = logits(model, step, past_key_values=cache, use_cache=True)[:, -1].clone()
        following[:, model.generation_config.suppress_tokens] = -torch.inf
        step = {"input_ids": following.argmax(-1, keepdim=True)}
        ids = torch.cat([ids, step["input_ids"]], dim=1)
    assert torch.equal(told.sequences, ids)


def test_a_tied_head_and_the_embedding_are_rounded_as_the_export_does(tied_checkpoint, quantize, inputs):
    out = quantize(tied_checkpoint, "rules=" + json.dumps(TIED_RULES))
    stored = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    assert stored.language_model.lm_head.weight is stored.language_model.model.embed_tokens.weight
    model, _ = load_quantized(out)
    embedding = load_model(tied_checkpoint).language_model.model.embed_tokens.weight.detach().numpy()
    eight = int8_channels.dequantize(int8_channels.quantize(embedding, scale_dtype="float16"))
    four = int4_blocks.dequantize(four_bits(embedding, 64))
    np.testing.assert_array_equal(model.language_model.lm_head.weight.detach().numpy(), eight)
    np.testing.assert_array_equal(model.language_model.model.embed_tokens.weight.detach().numpy(), four)
    # In the file both are still the float matrix.
    np.testing.assert_array_equal(stored.language_model.lm_head.weight.detach().numpy(), embedding)
    assert torch.isfinite(logits(model, inputs)).all()


TIED_RULES = [
    {"modules": "language_model.model.embed_tokens", "weights": "int4", "group_size": 64},
    {"modules": "language_model.*", "weights": "int8"},
]


def test_a_float_cache_stays_plain(quantize, checkpoint):
    out = quantize(checkpoint, kv="float32")
    model, _ = load_quantized(out)
    assert type(simulated_cache(out, model.config)) is DynamicCache
    assert not (out / "kv_scales.json").exists()


def test_the_language_model_alone_opens_without_us(quantize, checkpoint, quantized, inputs):
    out = quantize(checkpoint, part="llm")
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert not (out / "processor_config.json").exists()
    alone = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    whole = AutoModelForImageTextToText.from_pretrained(quantized, dtype=torch.float32).eval()
    ids = inputs["input_ids"].clamp(min=4)
    torch.testing.assert_close(logits(alone, {"input_ids": ids}), logits(whole, {"input_ids": ids}), rtol=0, atol=1e-5)


def test_a_checkpoint_in_bfloat16_is_rounded_from_bfloat16(make_checkpoint, quantize):
    source = make_checkpoint(dtype=torch.bfloat16)
    folder = QuantizedFolder(quantize(source))
    name = "language_model.model.layers.0.self_attn.q_proj"
    weight = load_model(source, dtype=torch.float32).get_parameter(f"{name}.weight").detach().numpy()
    expected = four_bits(weight, 32)
    np.testing.assert_array_equal(folder.quantized(name).values, expected.values)
    assert folder.tensor("language_model.model.norm.weight").dtype == torch.bfloat16


def test_many_shards_hold_the_same_model(checkpoint, quantize, quantized, inputs):
    out = quantize(checkpoint, "shard_gb=2e-5")
    assert len(list(out.glob("model-*.safetensors"))) > 2
    one, _ = load_quantized(quantized)
    many, _ = load_quantized(out)
    assert torch.equal(logits(one, inputs), logits(many, inputs))
    opened = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    whole = AutoModelForImageTextToText.from_pretrained(quantized, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(opened, inputs), logits(whole, inputs), rtol=0, atol=1e-5)


def test_a_folder_that_is_not_quantized_is_refused(checkpoint):
    with pytest.raises(ModelError, match="no quantization_config of bluelm"):
        load_quantized(checkpoint)
