"""Every architecture through quantize and export: float graphs are transformers', quantized ones what was simulated.

One tiny random model a kind. The verbs compare each graph with torch themselves; what they tell is held against limits
here, and decoder.onnx is run once more by hand: whole, and in chunks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig

from stages.artifacts.events import result_of
from stages.device.contract.device_config import read_device_config
from stages.device.contract.prefill_layout import PREFILL_FILE
from stages.device.imaging.spec import TilingSpec
from stages.device.runtime.context import TokenPrompt
from stages.device.runtime.language import load_language
from stages.export import ExportConfig
from stages.export import run as export
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.model.checkpoint import load_model, save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.policy import Rule
from stages.workshop.quant.simulation import load_quantized

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
}
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
# Text and tower of each kind: what its published checkpoints have that others have not.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama; siglip: an odd grid, a rest of pixels": (
        {"model_type": "llama"}, {"image_size": 58, "patch_size": 8},
    ),
    "smollm, smollm2: llama, tied, heads in threes": (
        {"model_type": "llama", "tie_word_embeddings": True, "hidden_size": 96, "num_attention_heads": 3,
         "num_key_value_heads": 1},
        {},
    ),
    "smollm3: layers without positions": (
        {"model_type": "smollm3", "tie_word_embeddings": True, "no_rope_layer_interval": 2}, {},
    ),
    "qwen2, qwen2.5: biases of q, k and v": ({"model_type": "qwen2", "tie_word_embeddings": True}, {}),
    "qwen3: norms of q and k": ({"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True}, {}),
    "minicpm: the llama that adopt folds it to; siglip 2 of fixed resolution: an even grid": (
        {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 4, "rms_norm_eps": 7e-8},
        {"image_size": 64, "patch_size": 16},
    ),
}  # fmt: skip
RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.*", weights="int8"),
)
LENGTH = 50


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one kind, with lively random weights."""
    torch.set_num_threads(1)
    text, tower = KINDS[request.param]
    tokenizer = train_tokenizer(["red blue green"] * 4, 270)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision = SiglipVisionConfig(**{**TOWER, "image_size": 32, "patch_size": 8, **tower}, vision_use_head=False)
    config = BlueLMVConfig(
        vision_config=vision,
        text_config={"vocab_size": len(tokenizer), **SIZES, **special, **text},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = build_model(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            middle = 0.0 if name.endswith("bias") else 1.0
            value.copy_(noise * value[0].numel() ** -0.5 if value.ndim > 1 else noise * 0.2 + middle)
    spec = TilingSpec(tile_size=vision.image_size, tokens_per_tile=config.tokens_per_tile, max_cols=2, max_rows=2)
    images = BlueLMVImageProcessor(spec, patch_size=vision.patch_size)
    folder = tmp_path_factory.mktemp("architecture") / "model"
    save_checkpoint(model, BlueLMVProcessor(images, tokenizer), folder)
    return folder


def last_logits(folder: Path, ids: list[int], chunk: int) -> np.ndarray:
    """What the device computes after a prompt, [V]."""
    context = load_language(folder, read_device_config(folder), threads=1, capacity=128, chunk=chunk).context
    return context.read(TokenPrompt(ids, image_token_id=-1)).logits


def torch_logits(model: Any, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model.language_model(input_ids=torch.tensor([ids])).logits[0, -1].numpy()


def prompt(folder: Path) -> list[int]:
    vocabulary = load_model(folder).config.text_config.vocab_size
    return [int(token) for token in np.random.default_rng(0).integers(4, vocabulary, LENGTH)]


def near(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


def test_float_graphs_compute_what_transformers_does(checkpoint: Path, tmp_path: Path) -> None:
    result = result_of(export(ExportConfig(), checkpoint, tmp_path / "onnx"))
    assert {check["output"] for check in result.checks} >= {"logits", "image_features", "vit_features"}
    assert all(check["relative"] < 1e-5 for check in result.checks)
    ids = prompt(checkpoint)
    expected = torch_logits(load_model(checkpoint), ids)
    for chunk in (LENGTH, 16, 7):
        assert near(last_logits(tmp_path / "onnx", ids, chunk), expected, 1e-4)


def test_quantized_graphs_compute_what_was_simulated(checkpoint: Path, tmp_path: Path) -> None:
    """INT16 inputs: their steps are so fine that chunks, and compact prefill, give one shot's logits."""
    quantized = tmp_path / "int4"
    config = QuantizeConfig(rules=RULES, kv="float32")
    result_of(quantize(config, checkpoint, None, quantized))
    result = result_of(export(ExportConfig(activations="int16"), quantized, tmp_path / "onnx"))
    checks = {(check["graph"], check["output"]): check for check in result.checks}
    assert (PREFILL_FILE, "keys and values") in checks
    for (graph, output), check in checks.items():
        assert check["relative"] < 2e-3, (graph, output)
    ids = prompt(checkpoint)
    expected = torch_logits(load_quantized(quantized, exact=True)[0], ids)
    whole = last_logits(tmp_path / "onnx", ids, LENGTH)
    assert near(whole, expected, 2e-3)
    for chunk in (16, 7):
        assert near(last_logits(tmp_path / "onnx", ids, chunk), whole, 2e-3)
