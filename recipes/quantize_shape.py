"""A checkpoint of a preset's real shape with random weights, and a few prompts with pictures: what quantizing takes.

    python recipes/quantize_shape.py FOLDER --preset bluelm-v-3b [--text-layers 40] [--vision-layers 27] [--prompts 4]

writes FOLDER/checkpoint (bfloat16, tensor by tensor: a 3B model takes 5.6 GB of disk and little memory) and
FOLDER/corpus. Then, for time and peak memory:

    /usr/bin/time -v bluelm quantize FOLDER/checkpoint --kv float32 --out FOLDER/rtn
    /usr/bin/time -v bluelm quantize FOLDER/checkpoint --data FOLDER/corpus --recipe quantize-gptq.yaml --out FOLDER/g
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.artifacts.folder import ArtifactSpec, create
from stages.device.imaging.presets import imaging_preset
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.modules import empty_model
from stages.workshop.quant.tensor_files import ShardWriter

SHARD = 1 << 30
SPREAD = 0.02
QUESTION, ANSWER = "What is written here?", "A line of text, and some more of it below."


def write_checkpoint(folder: Path, preset: str, text_layers: int | None, vision_layers: int | None) -> None:
    """A transformers folder with normally distributed weights; every norm's weight is 1."""
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer([QUESTION, ANSWER] * 4, vocab_size=300)
    config = preset_config(
        preset,
        text_layers=text_layers,
        vision_layers=vision_layers,
        eos_token_id=tokenizer.eos_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    config.dtype = "bfloat16"
    imaging = imaging_preset(preset)
    model = empty_model(config)
    generator = torch.Generator().manual_seed(0)
    writer = ShardWriter(folder, SHARD)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            value = (
                torch.ones(parameter.shape)
                if "norm" in name and name.endswith("weight")
                else torch.zeros(parameter.shape)
            )
        else:
            value = torch.empty(parameter.shape).normal_(0, SPREAD, generator=generator)
        writer.add(name, value.to(torch.bfloat16))
    writer.close()
    config.save_pretrained(folder)
    images = BlueLMVImageProcessor(imaging.tiling, patch_size=imaging.patch_size)
    BlueLMVProcessor(images, tokenizer).save_pretrained(folder)


def write_corpus(folder: Path, prompts: int) -> None:
    """Pictures of noise that take one tile and a thumbnail each, with one question."""
    random = np.random.default_rng(0)
    rows = []
    with create(folder, ArtifactSpec(kind="corpus", stage="data", config={"prompts": prompts})) as draft:
        for index in range(prompts):
            pixels = random.integers(0, 256, (360, 380, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(draft.path / f"{index}.png")
            turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
            rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
        (draft.path / "train.json").write_text(json.dumps(rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="bluelm-v-3b")
    parser.add_argument("--text-layers", type=int)
    parser.add_argument("--vision-layers", type=int)
    parser.add_argument("--prompts", type=int, default=4)
    options = parser.parse_args()
    write_checkpoint(options.folder / "checkpoint", options.preset, options.text_layers, options.vision_layers)
    write_corpus(options.folder / "corpus", options.prompts)


if __name__ == "__main__":
    main()
