"""`bluelm export --format gguf`: llama.cpp's numbers are ours, on tiny models of every kind and on a trained one.

llama.cpp runs in a Python of its own, named by BLUELM_PEER_LLAMA_PYTHON (see recipes/peers); without it they skip.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.artifacts.events import result_of
from stages.device.contract import int8_channels
from stages.export_gguf import GgufConfig, run
from stages.workshop.graph.gguf_model import LINEARS
from stages.workshop.graph.gguf_shape import turned_order
from stages.workshop.model.checkpoint import load_model
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import load_quantized

gguf = pytest.importorskip("gguf", reason="pip install 'bluelm[neighbours]' for gguf")
STORIES = Path(__file__).parents[1] / "workshop" / "quant" / "test_stories.py"
# What the trained model's configuration says about its shape.
READ = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama, biases, tied": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama 3.1's positions": {"model_type": "llama", "rope_parameters": LLAMA3},
    "linear positions": {"model_type": "llama", "rope_parameters": LINEAR},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "tie_word_embeddings": True},
}


def logits_of(checkpoint: Path, ids: list[int]) -> np.ndarray:
    """By transformers, [L, V]."""
    with torch.no_grad():
        return load_model(checkpoint).language_model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_float_logits_are_those_of_transformers(kind: str, make_checkpoint: Any, llama: Any, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(KINDS[kind])
    result = result_of(run(GgufConfig(pictures=False), checkpoint, tmp_path / "gguf"))
    assert set(result.tensors) == {"F32"}
    ids = [int(token) for token in np.random.default_rng(0).integers(4, 260, 70)]
    found = llama(tmp_path / "gguf" / "model.gguf", [ids])
    expected = logits_of(checkpoint, ids)
    assert np.abs(found["logits-0"] - expected).max() <= 1e-4 * np.abs(expected).max()


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Every tensor's numbers, by gguf's own reader, as [N, K]."""
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


@pytest.mark.parametrize("kind", ["llama, biases, tied", "qwen3"])
def test_a_quantized_models_weights_are_the_same_numbers(
    kind: str, make_checkpoint: Any, quantized: Any, tmp_path: Path
) -> None:
    folder = quantized(make_checkpoint(KINDS[kind]))
    result = result_of(run(GgufConfig(), folder, tmp_path / "gguf"))
    assert result.rounded == ()
    assert result.tensors["Q4_0"] == 12
    found, source = read_file(tmp_path / "gguf" / "model.gguf"), QuantizedFolder(folder)
    heads = {"attn_q": 4, "attn_k": 2}
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            part = LINEARS[name]
            expected = source.weight(f"language_model.model.layers.{layer}.{part}")
            if name in heads and kind.startswith("llama"):
                expected = expected[turned_order(len(expected), heads[name])]
            tensor, (rows, columns) = found[f"blk.{layer}.{name}.weight"], expected.shape
            np.testing.assert_array_equal(tensor[:rows, :columns], expected)
            assert not tensor[rows:].any()
            assert not tensor[:, columns:].any()
    table = source.quantized("language_model.model.embed_tokens")
    np.testing.assert_array_equal(found["token_embd.weight"], int8_channels.dequantize(table))
    assert ("output.weight" in found) == (kind == "qwen3")


def stories() -> Any:
    """The module that reads the trained model."""
    spec = importlib.util.spec_from_file_location("stories", STORIES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_trained_model_goes_on_with_our_tokens(
    make_checkpoint: Any, quantized: Any, llama: Any, data_dir: Path, tmp_path: Path
) -> None:
    """stories260K in INT4, blocks of 32: the first 24 tokens after three beginnings, and every position's logits."""
    module, folder = stories(), data_dir / "checkpoints" / "stories260K"
    language = module.read_model(folder / "stories260K.bin")
    pieces, scores = module.read_vocabulary(folder / "tok512.bin")
    config = {key: getattr(language.config, key) for key in READ}
    checkpoint = make_checkpoint(
        {"model_type": "llama", **config},
        language=language,
    )
    source = quantized(checkpoint)
    result_of(run(GgufConfig(), source, tmp_path / "gguf"))
    starts = ("Once upon a time, there was a little girl named Lily.", "Tom and his dog went to the park", "One day")
    prompts = [module.encode(start, pieces, scores) for start in starts]
    found = llama(tmp_path / "gguf" / "model.gguf", prompts, steps=24)
    model = load_quantized(source, exact=True)[0].language_model
    for index, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt])).logits[0].numpy()
            expected = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None)
        error = np.linalg.norm(found[f"logits-{index}"] - logits) / np.linalg.norm(logits)
        # llama.cpp rounds the inputs of these products to INT8.
        assert error < 2e-2
        assert found[f"tokens-{index}"].tolist() == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("stored", ["float", "int8"])
def test_llama_cpp_makes_our_image_tokens(
    stored: str, make_checkpoint: Any, quantized: Any, llama: Any, tmp_path: Path
) -> None:
    """One picture of a tile's size: 16×16 patches, 64 image tokens."""
    checkpoint = make_checkpoint({"model_type": "llama"}, tile=128, projector_hidden_act="gelu_pytorch_tanh")
    if stored == "int8":
        checkpoint = quantized(checkpoint)
    result_of(run(GgufConfig(), checkpoint, tmp_path / "gguf"))
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    np.save(tmp_path / "picture.npy", pixels)
    found = llama(tmp_path / "gguf" / "model.gguf", [], picture=tmp_path / "picture.npy")["features"]
    model = load_model(checkpoint) if stored == "float" else load_quantized(checkpoint, exact=True)[0]
    normal = torch.from_numpy((pixels.transpose(2, 0, 1)[None] / np.float32(255) - 0.5) / 0.5).float()
    with torch.no_grad():
        expected = model.get_image_features(normal)[0].numpy()
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (1e-3 if stored == "float" else 3e-2)
