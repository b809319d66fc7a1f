"""Times steps of stage 1 from pictures and from features, in turns. See features_speed.sh."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stages import encode_corpus
from stages.artifacts.events import result_of
from stages.artifacts.recipes import load_config, validate
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.sources import list_pictures
from stages.measure.paired import paired_ratio
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.training.feed import make_feed
from stages.workshop.training.loss import answer_loss, normalize_tiles
from stages.workshop.training.machine import Machine
from stages.workshop.training.optimizers import make_optimizer
from stages.workshop.training.recipe import PretrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, StageWork, prepare_stage

PRESET = "bluelm-v-3b"
CAPTION = (
    "A photograph in colour that shows a scene with several things in it, some of them near and some far away, "
    "seen from the front on a bright day, with a plain background behind them and a little text below."
)


def make(work: Path, options: argparse.Namespace) -> None:
    """A checkpoint with random weights, a corpus of captions, and its features."""
    pictures = [found.path.resolve() for found in list_pictures([options.pictures])][: options.batch * 2]
    texts = [f"{CAPTION} It is number {number}." for number in range(len(pictures))]
    tokenizer = train_tokenizer(texts, 512, 4096)
    processor = BlueLMVProcessor(BlueLMVImageProcessor.from_preset(imaging_preset(PRESET)), tokenizer)
    config = preset_config(
        PRESET,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        text_layers=options.text_layers,
        vision_layers=options.vision_layers,
    )
    save_checkpoint(build_model(config), processor, work / "checkpoint")
    rows = []
    (work / "images").mkdir()
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        name = f"images/{number}{picture.suffix}"
        (work / name).write_bytes(picture.read_bytes())
        turns = [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": text}]
        rows.append({"id": str(number), "image": name, "conversations": turns})
    (work / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    sets = ["tiling.max_cols=1", "tiling.max_rows=1", f"dtype={options.dtype}", f"threads={options.threads}"]
    encoding = load_config(encode_corpus.EncodeCorpusConfig, None, sets, {})
    made = result_of(encode_corpus.run(encoding, work / "checkpoint", [work / "data.json"], work / "features"))
    assert made.totals is not None
    rate = made.totals.encoded / made.totals.seconds
    sys.stderr.write(f"encoded {made.tiles} tiles, {rate:.2f} a second, {made.bytes / made.tiles:,.0f} bytes a tile\n")


def recipe_of(options: argparse.Namespace) -> PretrainRecipe:
    """Stage 1 as Table 7 has it, but for its length."""
    values = {
        "trained": [{"parameters": "multi_modal_projector.*"}],
        "learning_rate": 1e-3,
        "steps": options.pairs + 1,
        "global_batch": options.batch,
        "dtype": options.dtype,
        "tiling": {"max_cols": 1, "max_rows": 1},
    }
    return validate(PretrainRecipe, values, "features_speed")


def prepared(recipe: PretrainRecipe, inputs: StageInputs) -> StageWork:
    """Everything before the first step."""
    events = prepare_stage(recipe, inputs)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            found: StageWork = stop.value
            return found


def steps_of(work: StageWork, folder: Path) -> Iterator[tuple[float, float]]:
    """Steps as the trainer takes them: seconds, loss."""
    session, recipe = work.session(folder), work.recipe
    model, images = session.model, session.processor.image_processor
    learned = {name for group in session.groups for name in group.names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learned)
    optimizer = make_optimizer(dict(model.named_parameters()), session.groups, recipe.optimizer)
    feed = make_feed(session.prepared, session.processor, recipe, work.machine, folder)
    batches = iter(feed.loader(0, pin_memory=False))
    model.train()
    while True:
        started = time.perf_counter()
        batch: dict[str, Any] = next(batches)
        labels, positions, tiles = batch.pop("labels"), batch.pop("positions"), batch.pop("tiles")
        batch.pop("tokens")
        autocast = torch.autocast("cpu", torch.bfloat16) if recipe.dtype == "bfloat16" else nullcontext()
        with autocast:
            if tiles.is_floating_point():
                batch["vision_features"] = tiles
            else:
                batch["pixel_values"] = normalize_tiles(tiles, images.image_mean, images.image_std)
            loss = answer_loss(model, batch, labels, positions, (labels[:, 1:] >= 0).sum())
        loss.backward()
        nn.utils.clip_grad_norm_([each for each in model.parameters() if each.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - started, float(loss.detach())


def compare(work: Path, options: argparse.Namespace) -> None:
    """Both in turns; the first pair warms up."""
    torch.set_num_threads(options.threads)
    recipe, source, machine = recipe_of(options), FromCheckpoint(work / "checkpoint"), Machine("cpu", options.threads)
    data = work / "data.json"
    runs = {
        name: steps_of(prepared(recipe, StageInputs("pretrain", source, data, None, machine, features=features)), work)
        for name, features in (("pictures", None), ("features", work / "features"))
    }
    pairs = [(next(runs["pictures"]), next(runs["features"])) for _ in range(options.pairs + 1)]
    pictures, features = ([pair[index][0] for pair in pairs[1:]] for index in (0, 1))
    found = paired_ratio(features, pictures)
    told = {
        "vision_layers": options.vision_layers,
        "text_layers": options.text_layers,
        "batch": options.batch,
        "dtype": options.dtype,
        "ratio": round(found.median, 2),
        "low": round(found.low, 2),
        "high": round(found.high, 2),
        "pairs": found.pairs,
        "seconds_pictures": round(statistics.median(pictures), 3),
        "seconds_features": round(statistics.median(features), 3),
        "largest_difference_of_losses": max(abs(one[1] - other[1]) / one[1] for one, other in pairs),
    }
    sys.stdout.write(json.dumps(told) + "\n")


def main() -> None:
    """Makes what is needed, or measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=["make", "time"])
    parser.add_argument("work", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--vision-layers", type=int, default=27)
    parser.add_argument("--text-layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    make(options.work, options) if options.do == "make" else compare(options.work, options)


if __name__ == "__main__":
    main()
