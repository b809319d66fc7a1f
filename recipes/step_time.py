"""Times training steps in pairs: ours against plain Hugging Face code, packed against padded. See step_time.sh.

Ours is a whole step of `StageTrainer` as `bluelm finetune` runs it: loading, collating, forward, backward, clipping,
optimizer, schedule and record. The plain one gets the batch ready-made: tower, connector, `inputs_embeds`, all logits,
transformers' own loss, fused AdamW.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, SiglipVisionConfig, SiglipVisionModel, TrainerCallback

from stages.artifacts.recipes import validate
from stages.measure.paired import paired_ratio
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.model.checkpoint import quiet
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_model
from stages.workshop.training.batches import Batch, Collate, Collator, PackedCollator, SampleSet
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.feed import Feed
from stages.workshop.training.history import History
from stages.workshop.training.loss import answer_loss, normalize_tiles
from stages.workshop.training.machine import Machine, arguments
from stages.workshop.training.monitor import Monitor
from stages.workshop.training.optimizers import make_optimizer
from stages.workshop.training.order import BatchOrder, Steps
from stages.workshop.training.parameters import group, plan_parameters
from stages.workshop.training.pictures import Tiled
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.samples import Sample
from stages.workshop.training.segments import segmented_attention
from stages.workshop.training.trainer import StageTrainer

IMAGE, SIDE, PER_TILE = 3, 27, 196
MEAN_STD = ([0.5] * 3, [0.5] * 3)
# Share of Table 1's public data, tiles (thumbnail included) and words of text: lowest, highest.
MIXTURE = {
    "pure text": (2.2, (0, 0), (100, 2000)),
    "caption": (10.0, (1, 5), (30, 150)),
    "VQA": (20.3, (2, 7), (20, 200)),
    "OCR": (23.3, (5, 17), (50, 700)),
}


def build(scale: int) -> BlueLMVForConditionalGeneration:
    """The 3B model's proportions, narrower by `scale` and with 4 + 3 layers; tiles of 27×27 patches, 196 tokens."""
    vision = SiglipVisionConfig(
        hidden_size=1152 // scale // 16 * 16,
        intermediate_size=4304 // scale,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=1,
        vision_use_head=False,
    )
    width = 2304 // scale // 32 * 32
    text = LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=5760 // scale,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return build_model(BlueLMVConfig(vision_config=vision, text_config=text, image_token_id=IMAGE))


def mixture(count: int, seed: int = 0, longest: int = 4096) -> list[Sample]:
    """Samples with the lengths of the paper's kinds of data; half of the text is the answer's."""
    rng = np.random.default_rng(seed)
    shares = np.array([share for share, _, _ in MIXTURE.values()])
    made = []
    for number, kind in enumerate(rng.choice(list(MIXTURE), count, p=shares / shares.sum())):
        _, tiles, words = MIXTURE[kind]
        drawn = int(rng.integers(tiles[0], tiles[1] + 1))
        text = int(np.exp(rng.uniform(np.log(words[0]), np.log(words[1]))))
        text = min(text, longest - drawn * PER_TILE)
        ids = rng.integers(4, 8192, drawn * PER_TILE + text).astype(np.int32)
        ids[5 : 5 + drawn * PER_TILE] = IMAGE
        is_answer = np.arange(len(ids)) >= len(ids) - text // 2
        pictures = (Tiled(PictureFile(Path(), str(number)), drawn),) if drawn else ()
        made.append(Sample(f"{kind} {number}", ids, is_answer, pictures, drawn))
    return made


class RandomTiles:
    """Pictures that are at hand at once: `Tiled.most` tiles of noise."""

    def tile_count(self, tiled: Tiled) -> int:
        assert tiled.most is not None
        return tiled.most

    def coarser(self, tiled: Tiled) -> Tiled | None:
        return None

    def holds(self, tiled: Tiled) -> bool:
        return True

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        return torch.full((self.tile_count(tiled), 3, SIDE, SIDE), 90, dtype=torch.uint8)


def recipe_of(steps: int, batch: int, dtype: str) -> FinetuneRecipe:
    """Everything is trained, as in stage 2."""
    values = {"trained": [{"parameters": "*"}], "learning_rate": 1e-4, "steps": steps, "global_batch": batch}
    return validate(FinetuneRecipe, values | {"dtype": dtype, "execution": {"save_every": None}}, "step_time")


def optimizer_of(model: nn.Module, recipe: FinetuneRecipe) -> torch.optim.Optimizer:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return make_optimizer(dict(model.named_parameters()), group(plan_parameters(shapes, recipe)), recipe.optimizer)


class PlainStep:
    """The same model as anyone would train it with transformers and torch."""

    def __init__(self, model: BlueLMVForConditionalGeneration, recipe: FinetuneRecipe) -> None:
        self.tower = SiglipVisionModel(model.config.vision_config)
        self.tower.load_state_dict(model.vision_tower.state_dict())
        self.connector, self.llm = model.multi_modal_projector, model.language_model
        self.parts = nn.ModuleList([self.tower, self.connector, self.llm]).train()
        self.clip = recipe.optimizer.max_grad_norm
        self.bfloat16 = recipe.dtype == "bfloat16"
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def __call__(self, batch: Batch) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            ids = batch["input_ids"]
            embeds = self.llm.get_input_embeddings()(ids)
            pixels = (batch["tiles"].float() / 255 - 0.5) / 0.5
            features = self.connector(self.tower(pixel_values=pixels).last_hidden_state)
            embeds = embeds.masked_scatter((ids == IMAGE).unsqueeze(-1), features.flatten(0, 1).to(embeds))
            mask = (ids != 0).long()
            loss = self.llm(inputs_embeds=embeds, attention_mask=mask, labels=batch["labels"], use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.parts.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


class InTurns(TrainerCallback):
    """After each of our steps the plain step on the same batch; keeps both times and losses."""

    def __init__(self, plain: PlainStep) -> None:
        self.plain = plain
        self.batch: Batch = {}
        self.times: list[tuple[float, float]] = []
        self.losses: list[float] = []
        self._since = 0.0

    def on_step_end(self, *told: Any, **kwargs: Any) -> None:
        middle = time.perf_counter()
        self.losses.append(self.plain(self.batch))
        now = time.perf_counter()
        if self._since:
            self.times.append((middle - self._since, now - middle))
        self._since = now


class ShownTrainer(StageTrainer):
    """Shows its batches to whoever runs in turns with it."""

    turns: InTurns

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.turns.batch = dict(inputs)
        return super().training_step(model, inputs, *args, **kwargs)


def compare_step(pairs: int, scale: int, batch: int, dtype: str) -> dict[str, Any]:
    """Our step against the plain one: the ratio of the times, ours over theirs."""
    warm = 2
    recipe = recipe_of(pairs + warm, batch, dtype)
    samples = [sample for sample in mixture(40 * batch, longest=900) if sample.length < 900 and sample.tiles]
    order = BatchOrder([sample.length for sample in samples], Steps(recipe.steps, 1, batch), 0)
    feed = Feed(SampleSet(samples, RandomTiles()), Collator(0), order, order)
    model = build(scale)
    turns = InTurns(PlainStep(build(scale), recipe))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    monitor = Monitor(History(LossCurve(1)))
    with tempfile.TemporaryDirectory() as states, quiet():
        trainer = ShownTrainer(
            model=model,
            args=arguments(recipe, Machine(device="cpu"), Path(states)),
            feed=feed,
            groups=group(plan_parameters(shapes, recipe)),
            optimizer_recipe=recipe.optimizer,
            pixels=MEAN_STD,
            execution=recipe.execution,
            monitor=monitor,
            evaluation=None,
            stop=threading.Event(),
        )
        trainer.turns = turns
        trainer.add_callback(turns)
        trainer.train()
    ours, theirs = zip(*turns.times[warm - 1 :], strict=True)
    return {
        "what": f"step of {batch}, {dtype}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters",
        **ratio(theirs, ours),
        "seconds_ours": statistics.median(ours),
        "seconds_plain": statistics.median(theirs),
        "first_losses": [monitor.history.curve.losses[0], turns.losses[0]],
    }


def compare_packing(pairs: int, scale: int, batch: int, accumulation: int) -> list[dict[str, Any]]:
    """The same samples a step: padded, padded in length groups, packed."""
    recipe = recipe_of(pairs + 1, batch, "float32")
    samples = mixture(batch * 32)
    plan = Steps(recipe.steps, accumulation, batch // accumulation)
    forms: dict[str, tuple[dict[str, bool], Collate]] = {
        "padded": ({}, Collator(0)),
        "padded, length groups": ({"by_length": True}, Collator(0)),
        "packed": ({"packed": True}, PackedCollator()),
    }
    runs = {name: steps_of(samples, plan, build(scale), recipe, *form) for name, form in forms.items()}
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in runs}
    for _ in range(recipe.steps):
        for name, run in runs.items():
            found[name].append(next(run))
    table = []
    for name, steps in found.items():
        seconds_a_token = [seconds / tokens for seconds, tokens, _ in steps[1:]]
        padded = [seconds / tokens for seconds, tokens, _ in found["padded"][1:]]
        tokens, slots = (sum(step[index] for step in steps) for index in (1, 2))
        speed = {"tokens_per_s": round(statistics.median(1 / each for each in seconds_a_token))}
        table.append({"what": name, **ratio(seconds_a_token, padded), **speed, "real_tokens": tokens / slots})
    return table


def steps_of(
    samples: Sequence[Sample],
    plan: Steps,
    model: BlueLMVForConditionalGeneration,
    recipe: FinetuneRecipe,
    form: Mapping[str, bool],
    collate: Collate,
) -> Iterator[tuple[float, int, int]]:
    """Steps of one form: seconds, real tokens, tokens computed."""
    batches = iter(BatchOrder([sample.length for sample in samples], plan, 0, **form))
    data, optimizer = SampleSet(samples, RandomTiles()), optimizer_of(model, recipe)
    model.train()
    attention: Callable[[], Any] = lambda: segmented_attention(model.language_model)  # noqa: E731
    while True:
        started, tokens, slots = time.perf_counter(), 0, 0
        for _ in range(plan.accumulation):
            batch = collate(data.__getitems__(next(batches)))
            tokens, slots = tokens + batch.pop("tokens"), slots + batch["input_ids"].numel()
            labels, positions = batch.pop("labels"), batch.pop("positions")
            batch["pixel_values"] = normalize_tiles(batch.pop("tiles"), *MEAN_STD)
            with attention():
                answer_loss(model, batch, labels, positions, 1000).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - started, tokens, slots


def ratio(subject: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Other's time over the subject's, in pairs."""
    found = paired_ratio(subject, other)
    return {
        "ratio": round(found.median, 3),
        "low": round(found.low, 3),
        "high": round(found.high, 3),
        "pairs": found.pairs,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["step", "packing"])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    if options.only != "packing":
        rows += [compare_step(options.pairs, 9, 4, dtype) for dtype in ("float32", "bfloat16")]
    if options.only != "step":
        rows += compare_packing(options.pairs, 16, 12, 1)
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    for row in rows:
        what, *rest = row.items()
        sys.stdout.write(f"{what[1]}: " + ", ".join(f"{key} {value}" for key, value in rest) + "\n")


if __name__ == "__main__":
    main()
