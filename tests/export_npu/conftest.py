"""A tiny quantized model and a tiny corpus, exported once for an NPU; the ranges that were seen are kept beside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from stages.artifacts.events import result_of
from stages.artifacts.folder import ArtifactSpec, create
from stages.device.imaging.presets import imaging_preset
from stages.export_npu import ExportNpuConfig, run
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.npu import writing
from stages.workshop.npu.graphs import Calibrated, NpuModel
from stages.workshop.quant.policy import Rule

RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.lm_head", weights="int8"),
)
CONFIG = ExportNpuConfig(max_context=96, chunk=16, batch=2, samples=3)
QUESTION = "What colour is the shape?"


@dataclass(frozen=True)
class Exported:
    """The folder, and what it was written from."""

    folder: Path
    model: NpuModel
    calibrated: Calibrated


def save_tiny(folder: Path) -> Path:
    """A checkpoint as finetune leaves it, with random weights: two layers each, tied head."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["what colour is the shape? red, blue, green"] * 2, 300)
    config = preset_config(
        "tiny",
        vocab_size=len(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        text_layers=2,
        vision_layers=2,
    )
    images = BlueLMVImageProcessor.from_preset(imaging_preset("tiny"))
    save_checkpoint(build_model(config), BlueLMVProcessor(images, tokenizer), folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float checkpoint."""
    return save_tiny(tmp_path_factory.mktemp("npu") / "checkpoint")


@pytest.fixture(scope="session")
def quantized(checkpoint: Path, corpus: Path) -> Path:
    """The same in the paper's precisions, with scales for an INT8 cache."""
    folder = checkpoint.with_name("quantized")
    result_of(quantize(QuantizeConfig(rules=RULES, samples=3, error_samples=0), checkpoint, corpus, folder))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one and of several tiles, and one question without a picture."""
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    with create(folder, ArtifactSpec(kind="corpus", stage="data render", config={})) as draft:
        rows = []
        (draft.path / "images").mkdir()
        for number, (width, height) in enumerate([(24, 24), (48, 24), (40, 70), (30, 21)]):
            picture = Image.new("RGB", (width, height), (200, 180, 40 * number))
            ImageDraw.Draw(picture).ellipse((3, 2, 15, 18), fill=(255 - 60 * number, 10, 90))
            picture.save(draft.path / "images" / f"{number}.png")
            turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": "blue"}]
            rows.append({"id": str(number), "image": f"images/{number}.png", "conversations": turns})
        plain = [{"from": "human", "value": "red, blue?"}, {"from": "gpt", "value": "green"}]
        rows.append({"id": "plain", "conversations": plain})
        for split in ("train", "heldout"):
            (draft.path / f"{split}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def exported(quantized: Path, corpus: Path) -> Exported:
    """The NPU export."""
    kept: dict[str, Calibrated] = {}
    models: list[NpuModel] = []
    original = writing.graphs.write_quantized

    def watch(model: NpuModel, calibrated: Calibrated, folder: Path):
        models.append(model)
        kept["seen"] = calibrated
        return original(model, calibrated, folder)

    out = quantized.with_name("npu-export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.graphs, "write_quantized", watch)
        result_of(run(CONFIG, quantized, corpus, out))
    return Exported(out, models[0], kept["seen"])
