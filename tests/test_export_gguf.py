"""`bluelm export --format gguf`: llama.cpp's numbers are ours, on tiny models of every kind and on a trained one.

llama.cpp runs in a Python of its own, named by BLUELM_PEER_LLAMA_PYTHON (see recipes/peers); without it those tests skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, SiglipVisionConfig

from stages.artifacts.events import result_of
from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.imaging.spec import TilingSpec
from stages.export_gguf import GgufConfig, run
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.graph.gguf_shape import turned_order
from stages.workshop.model.checkpoint import load_model, save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.policy import Rule
from stages.workshop.quant.quantized_folder import QuantizedFolder

gguf = pytest.importorskip("gguf", reason="pip install 'bluelm[neighbours]' for gguf")
PROCESS = Path(__file__).parent / "workshop" / "graph" / "llama_process.py"
STORIES = Path(__file__).parent / "workshop" / "quant" / "test_stories.py"
CORPUS = ["What colour is the shape? It's red, isn't it? 12 squares, 345 circles."] * 4
TEXTS = (
    "What colour is the shape?",
    "It's 1234 circles,  two   spaces\nand a line\n\n",
    "<|im_start|>user\nred?<|im_end|>\n",
    "Grüße, 你好 ☺",
    " leading",
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
}
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
RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.*", weights="int8"),
)


@pytest.fixture(scope="session")
def llama_python() -> Path:
    named = os.environ.get("BLUELM_PEER_LLAMA_PYTHON")
    if not named or not Path(named).is_file():
        pytest.skip("BLUELM_PEER_LLAMA_PYTHON names no Python with llama-cpp-python")
    return Path(named)


@dataclass(frozen=True)
class Llama:
    """llama.cpp's answers about a file."""

    python: Path
    folder: Path

    def __call__(self, model: Path, prompts: list[list[int]], steps: int = 1, texts: tuple[str, ...] = ()) -> Any:
        request, answer = self.folder / "request.json", self.folder / "answer.npz"
        request.write_text(
            json.dumps({"model": str(model), "context": 512, "prompts": prompts, "steps": steps, "texts": texts})
        )
        subprocess.run([self.python, PROCESS, request, answer], check=True, timeout=300)
        return np.load(answer)


@pytest.fixture
def llama(llama_python: Path, tmp_path: Path) -> Llama:
    return Llama(llama_python, tmp_path)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint with lively random weights."""

    def build(text: dict[str, Any], tokenizer: Any = None, language: Any = None, tile: int = 32, **fields: Any) -> Path:
        torch.set_num_threads(1)
        tokenizer = tokenizer or train_tokenizer(CORPUS, 300)
        special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        tower = SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=44,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=tile,
            patch_size=8,
            vision_use_head=False,
        )
        text = {"vocab_size": len(tokenizer), **SIZES, **special, **text}
        image = tokenizer.convert_tokens_to_ids("<image>")
        model = build_model(BlueLMVConfig(vision_config=tower, text_config=text, image_token_id=image, **fields))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, value in model.named_parameters():
                noise = torch.randn(value.shape, generator=generator)
                around = 0.0 if name.endswith("bias") else 1.0
                value.copy_(noise * value[0].numel() ** -0.5 if value.ndim > 1 else noise * 0.2 + around)
        if language is not None:
            model.language_model.load_state_dict(language.state_dict())
        spec = TilingSpec(tile_size=tile, tokens_per_tile=model.config.tokens_per_tile, max_cols=2, max_rows=2)
        folder = tmp_path_factory.mktemp("checkpoint") / "model"
        save_checkpoint(model, BlueLMVProcessor(BlueLMVImageProcessor(spec, patch_size=8), tokenizer), folder)
        return folder

    return build


def logits_of(checkpoint: Path, ids: list[int]) -> np.ndarray:
    """By transformers, [L, V]."""
    with torch.no_grad():
        return load_model(checkpoint).language_model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_float_logits_are_those_of_transformers(kind: str, make: Any, llama: Llama, tmp_path: Path) -> None:
    checkpoint = make(KINDS[kind])
    result = result_of(run(GgufConfig(pictures=False), checkpoint, tmp_path / "gguf"))
    assert set(result.tensors) == {"F32"}
    ids = [int(token) for token in np.random.default_rng(0).integers(4, 260, 70)]
    found = llama(tmp_path / "gguf" / "model.gguf", [ids], texts=TEXTS)
    expected = logits_of(checkpoint, ids)
    assert np.abs(found["logits-0"] - expected).max() <= 1e-4 * np.abs(expected).max()
