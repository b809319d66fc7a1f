"""A corpus of a dozen small pictures and a model of a few thousand parameters: training takes fractions of a second."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from transformers import LlamaConfig, SiglipVisionConfig

from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.recipes import validate
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.training.machine import Machine
from stages.workshop.training.recipe import FinetuneRecipe

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
QUESTION = "What colour is it?"
MACHINE = Machine(device="cpu", threads=1)
ROOT = Path(__file__).resolve().parents[3]


def write_corpus(out: Path, rows: int = 12) -> Path:
    """Coloured squares with one question each; every third row is text only."""
    rng = random.Random(0)
    spec = ArtifactSpec(kind="corpus", stage="data", config={"rows": rows})
    with create(out, spec) as draft:
        (draft.path / "images").mkdir()
        content: list[dict[str, Any]] = []
        for number in range(rows):
            name = rng.choice(sorted(COLOURS))
            row: dict[str, Any] = {"id": f"row{number}"}
            question = f"Say {name}." if number % 3 == 2 else f"<image>\n{QUESTION}"
            if number % 3 != 2:
                picture = Image.new("RGB", (40 + number, 36), (90, 90, 90))
                ImageDraw.Draw(picture).rectangle([4, 4, 28, 28], fill=COLOURS[name])
                row["image"] = f"images/{number}.png"
                picture.save(draft.path / row["image"])
            row["conversations"] = [{"from": "human", "value": question}, {"from": "gpt", "value": name}]
            content.append(row)
        (draft.path / "train.json").write_text(json.dumps(content), encoding="utf-8")
        (draft.path / "heldout.json").write_text(json.dumps(content[:2]), encoding="utf-8")
        (draft.path / "index.json").write_text("{}", encoding="utf-8")
    return out


def write_checkpoint(folder: Path) -> Path:
    """A tower and a language model of two layers each; tiles of 32 pixels, 4 image tokens a tile."""
    tokenizer = train_tokenizer([QUESTION, *COLOURS, "Say red."], 280, 128)
    spec = TilingSpec(tile_size=32, tokens_per_tile=4)
    processor = BlueLMVProcessor(BlueLMVImageProcessor(spec, patch_size=8), tokenizer)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = BlueLMVConfig(vision_config=vision, text_config=text, image_token_id=processor.image_token_id)
    save_checkpoint(build_model(config, seed=1), processor, folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus artifact."""
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="session")
def two_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two rows of the corpus alone, which it holds out too."""
    return write_corpus(tmp_path_factory.mktemp("data") / "two", rows=2)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder of the micro model."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "micro")


@pytest.fixture(scope="session")
def machine() -> Machine:
    """One CPU thread."""
    return MACHINE


@pytest.fixture(scope="session")
def micro_recipe() -> Callable[..., FinetuneRecipe]:
    """A recipe of a few steps; keyword arguments replace its values."""

    def make(**changes: Any) -> FinetuneRecipe:
        values: dict[str, Any] = {
            "trained": [{"parameters": "*"}],
            "learning_rate": 3e-3,
            "steps": 6,
            "warmup_steps": 1,
            "global_batch": 4,
            "dtype": "float32",
            "sequence_length": 128,
            "tiling": {"max_cols": 2, "max_rows": 1},
            "log_every": 4,
            "execution": {"save_every": 2},
        }
        return validate(FinetuneRecipe, values | changes, "micro")

    return make


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., str]:
    """Runs a script, or `-m` a module, in two processes that find one another at a free port; returns stdout."""

    def run(*words: Any) -> str:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*launcher, *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run
