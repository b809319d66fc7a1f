"""Tiny checkpoints for GGUF, and llama.cpp to read them.

llama.cpp runs in a Python of its own, named by BLUELM_PEER_LLAMA_PYTHON (see recipes/peers); without it its tests skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig

from stages.artifacts.events import result_of
from stages.device.imaging.spec import TilingSpec
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.policy import Rule

pytest.importorskip("gguf", reason="pip install 'bluelm[neighbours]' for gguf")
PROCESS = Path(__file__).with_name("llama_process.py")
CORPUS = ["What colour is the shape? It's red, isn't it? 12 squares, 345 circles."] * 4
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
}
RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    # 172 columns, and 88: no group of 32 divides them, but GGUF's blocks fit once zeros are behind them.
    Rule(modules="language_model.*.down_proj", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.*", weights="int8"),
)


@pytest.fixture(scope="session")
def llama_python() -> Path:
    here = sys.executable if importlib.util.find_spec("llama_cpp") else ""
    named = os.environ.get("BLUELM_PEER_LLAMA_PYTHON", here)
    if not named or not Path(named).is_file():
        pytest.skip("no llama-cpp-python here, and BLUELM_PEER_LLAMA_PYTHON names no Python that has it")
    return Path(named)


@dataclass(frozen=True)
class Llama:
    """llama.cpp's answers about a file."""

    python: Path
    folder: Path

    def __call__(
        self,
        model: Path,
        prompts: list[list[int]],
        steps: int = 1,
        texts: tuple[str, ...] = (),
        picture: Path | None = None,
    ) -> Any:
        request, answer = self.folder / "request.json", self.folder / "answer.npz"
        asked = {"model": str(model), "context": 512, "prompts": prompts, "steps": steps, "texts": texts}
        request.write_text(json.dumps({**asked, "picture": picture and str(picture)}))
        subprocess.run([self.python, PROCESS, request, answer], check=True, timeout=300)
        return np.load(answer)


@pytest.fixture
def llama(llama_python: Path, tmp_path: Path) -> Llama:
    return Llama(llama_python, tmp_path)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
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


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[[Path], Path]:
    """Quantizes a checkpoint: INT8 vision, INT4 language model."""

    def run(checkpoint: Path) -> Path:
        result_of(quantize(QuantizeConfig(rules=RULES, kv="float32"), checkpoint, None, tmp_path / "int4"))
        return tmp_path / "int4"

    return run


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """What tokenizers of these tests learn from."""
    return CORPUS
