"""Every stage that writes a folder, as command lines on inputs that take seconds; each made from the one before."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import yaml
from PIL import Image, ImageDraw

TOWER = {
    "tower": {"tile_size": 32, "patch_size": 8, "layers": 1, "width": 32, "mlp": 32, "heads": 2},
    "train_fonts": ["DejaVu Sans"],
    "heldout_fonts": ["DejaVu Serif"],
    "heldout": 4,
    "least_text": 9,
    "most_text": 16,
    "learning_rate": 1e-3,
    "steps": 3,
    "global_batch": 2,
    "dtype": "float32",
    "log_every": 1,
    "execution": {"save_every": 1},
}
SMALL = ("--set", "train=8", "--set", "heldout=2")
FEW = ("--set", "steps=2", "--set", "warmup_steps=1", "--set", "global_batch=2")


@dataclass(frozen=True)
class Stage:
    """A command but for its --out.

    Attributes:
        name: of the stage, and of its folder among the inputs of others.
        words: the command.
        inputs: what of the inputs it reads, by name in their folder.
    """

    name: str
    words: tuple[str, ...]
    inputs: tuple[str, ...] = ()


def stages(base: Path) -> list[Stage]:
    """All of them, in an order in which each finds its inputs in `base`."""

    def at(name: str) -> str:
        return str(base / name)

    corpus = ("--data", at("corpus"))
    return [
        Stage("corpus", ("data", "render", "--recipe", "tiny/data.yaml", *SMALL)),
        Stage(
            "checked",
            ("data", "check", at("rows.json"), "--images", at("pictures"), "--copy-pictures", "--threads", "1"),
            ("rows.json", "pictures"),
        ),
        Stage("mixed", ("data", "mix", "--source", f"a={at('corpus')}", "--total", "6"), ("corpus",)),
        Stage("tiles", ("tile", at("corpus"), "--preset", "tiny"), ("corpus",)),
        Stage("tile-shards", ("tile", at("pictures"), "--preset", "tiny", "--engine", "local"), ("pictures",)),
        Stage("stage1", ("pretrain", "--recipe", "tiny/pretrain.yaml", *corpus, *FEW), ("corpus",)),
        Stage(
            "stage2",
            ("finetune", at("stage1"), "--recipe", "tiny/finetune.yaml", *corpus, "--tiles", at("tiles"), *FEW),
            ("stage1", "corpus", "tiles"),
        ),
        Stage("language", ("split", at("stage2"), "--part", "language"), ("stage2",)),
        Stage("tower", ("pretrain-tower", "--recipe", at("tower.yaml"), "--threads", "1"), ("fonts",)),
        Stage("int4", ("quantize", at("stage2"), *corpus, "--samples", "2"), ("stage2", "corpus")),
        Stage("onnx", ("export", at("int4")), ("int4",)),
        Stage("gguf", ("export", at("int4"), "--format", "gguf"), ("int4",)),
        Stage("features", ("encode", at("onnx"), at("pictures"), "--threads", "1"), ("onnx", "pictures")),
        Stage(
            "vit-features",
            ("encode", at("onnx"), at("pictures"), "--before-connector", "--threads", "1"),
            ("onnx", "pictures"),
        ),
        Stage("eval", ("bench", "eval", at("onnx"), *corpus), ("onnx", "corpus")),
        Stage(
            "accuracy",
            ("bench", "accuracy", at("onnx"), *corpus, "--max-tokens", "3", "--threads", "1"),
            ("onnx", "corpus"),
        ),
    ]


def write_sources(base: Path) -> None:
    """What no stage makes: pictures with rows about them, and recipes."""
    pictures = base / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(12):
        picture = Image.new("RGB", (60 + 7 * number, 48), (number * 20, 90, 90))
        ImageDraw.Draw(picture).ellipse([6, 6, 40, 40], fill=(200, 20 * number, 0))
        picture.save(pictures / f"{number:02d}.png")
        said = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"circle {number}"}]
        rows.append({"id": f"row{number}", "image": f"{number:02d}.png", "conversations": said})
    (base / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    shutil.copytree(fonts, base / "fonts", dirs_exist_ok=True)
    (base / "tower.yaml").write_text(yaml.safe_dump({**TOWER, "fonts": [str(base / "fonts")]}), encoding="utf-8")
