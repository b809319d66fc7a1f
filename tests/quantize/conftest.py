"""A tiny checkpoint, a tiny corpus, and what quantize makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, SiglipVisionConfig

from stages.artifacts.events import result_of
from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.recipes import load_config
from stages.device.imaging.spec import TilingSpec
from stages.quantize import QuantizeConfig, run
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer

TILE, PATCH = 24, 8
ANSWERS = ("red", "blue", "green", "grey")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Random weights everywhere, also where initial ones would be 0 or 1: a swapped or unused weight then shows."""

    def make(*, tied: bool = False, text_mlp: int = 96, dtype: torch.dtype = torch.float32) -> Path:
        tokenizer = train_tokenizer(["What colour is it?", *ANSWERS] * 4, vocab_size=300)
        vision = SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=TILE,
            patch_size=PATCH,
            vision_use_head=False,
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=text_mlp,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        image_token_id = tokenizer.convert_tokens_to_ids("<image>")
        model = build_model(BlueLMVConfig(vision_config=vision, text_config=text, image_token_id=image_token_id))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in model.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.15)
        spec = TilingSpec(tile_size=TILE, tokens_per_tile=model.config.tokens_per_tile, max_cols=2, max_rows=2)
        processor = BlueLMVProcessor(BlueLMVImageProcessor(spec, patch_size=PATCH), tokenizer)
        folder = tmp_path_factory.mktemp("checkpoint")
        save_checkpoint(model.to(dtype), processor, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="session")
def tied_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tied=True)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "corpus"
    rows: list[dict[str, Any]] = []
    with create(folder, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "images").mkdir()
        for index in range(6):
            answer = ANSWERS[index % len(ANSWERS)]
            name = f"images/{index}.png"
            Image.new("RGB", (20 + 9 * index, 50 - 5 * index), answer).save(draft.path / name)
            turns = [
                {"from": "human", "value": "<image>\nWhat colour is it?"},
                {"from": "gpt", "value": answer},
            ]
            rows.append({"id": str(index), "image": name, "conversations": turns})
        (draft.path / "train.json").write_text(json.dumps(rows))
        (draft.path / "heldout.json").write_text(json.dumps(rows[:1]))
    return folder


def config_of(*sets: str, **flags: Any) -> QuantizeConfig:
    return load_config(QuantizeConfig, "quantize.yaml", ("measure.questions=0", *sets), flags)


@pytest.fixture(scope="session")
def quantize(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Quantizes a checkpoint by the paper's recipe with some keys changed; the new folder."""

    def make(checkpoint: Path, *sets: str, **flags: Any) -> Path:
        out = tmp_path_factory.mktemp("out") / "quantized"
        return result_of(run(config_of(*sets, **flags), checkpoint, corpus, out)).out

    return make


@pytest.fixture(scope="session")
def quantized(quantize: Callable[..., Path], checkpoint: Path) -> Path:
    return quantize(checkpoint)
