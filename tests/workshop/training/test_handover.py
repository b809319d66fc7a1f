"""From stage to stage nothing of the projector is lost: what training ended with is what the next stage begins with.

Peers lost it on the way (LLaVA#852, #474): a stage that quietly begins with a random projector still trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from stages import adopt
from stages.artifacts.events import result_of
from stages.workshop.model.checkpoint import load_checkpoint, load_model
from stages.workshop.training.parts import FromParts
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint, Source
from stages.workshop.training.stage import StageInputs, run_stage
from stages.workshop.training.trainer import StageTrainer

Weights = dict[str, torch.Tensor]
PREFIX = "multi_modal_projector."


def projector(weights: dict[str, Any]) -> Weights:
    found = {name: value.detach().clone() for name, value in weights.items() if name.startswith(PREFIX)}
    assert len(found) == 6
    return found


def same(first: Weights, second: Weights) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@dataclass
class Seen:
    """The projector in memory when each run began and ended."""

    starts: list[Weights] = field(default_factory=list)
    ends: list[Weights] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    original = StageTrainer.train

    def look(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        found.starts.append(projector(dict(self.model.named_parameters())))
        done = original(self, *args, **kwargs)
        found.ends.append(projector(dict(self.model.named_parameters())))
        return done

    monkeypatch.setattr(StageTrainer, "train", look)
    return found


@pytest.fixture
def parts(checkpoint: Path, tmp_path: Path) -> FromParts:
    """A tower and a language model in folders of their own."""
    model, processor = load_checkpoint(checkpoint)
    model.vision_tower.save_pretrained(tmp_path / "vision")
    model.language_model.save_pretrained(tmp_path / "llm")
    processor.tokenizer.save_pretrained(tmp_path / "llm")
    return FromParts(tmp_path / "vision", tmp_path / "llm")


@pytest.mark.parametrize("lora", [None, {"rank": 2}, {"rank": 2, "merge": False}], ids=["all", "LoRA", "LoRA apart"])
def test_the_projector_survives_every_handover(
    lora: dict[str, Any] | None,
    parts: FromParts,
    seen: Seen,
    corpus: Path,
    machine: Any,
    micro_recipe: Callable[..., TrainRecipe],
    tmp_path: Path,
) -> None:
    def run(source: Source, recipe: TrainRecipe, out: Path) -> Weights:
        result_of(run_stage(recipe, StageInputs(out.name, source, corpus, None, machine), out))
        return projector(load_file(out / "model.safetensors"))

    stage1 = run(
        parts,
        micro_recipe(trained=[{"parameters": f"{PREFIX}*"}], tiling={"max_cols": 1, "max_rows": 1}),
        tmp_path / "1",
    )
    assert not same(seen.starts[0], seen.ends[0])
    assert same(seen.ends[0], stage1)

    stage2 = run(FromCheckpoint(tmp_path / "1"), micro_recipe(lora=lora, dtype="bfloat16"), tmp_path / "2")
    assert same(stage1, seen.starts[1])
    assert not same(seen.starts[1], seen.ends[1])
    assert same(seen.ends[1], stage2)

    final = tmp_path / "2"
    if lora is not None and not lora.get("merge", True):
        final = tmp_path / "adopted"
        result_of(adopt.run(adopt.AdoptConfig(), tmp_path / "2", final))
    # Our own loading, and transformers' alone.
    assert same(stage2, projector(load_model(final).state_dict()))
    assert same(stage2, projector(AutoModelForImageTextToText.from_pretrained(final).state_dict()))
    # A third stage begins where the second ended.
    run(FromCheckpoint(final), micro_recipe(steps=1, warmup_steps=0), tmp_path / "3")
    assert same(stage2, seen.starts[2])


def test_parts_begin_with_a_random_projector_that_the_seed_decides(parts: FromParts) -> None:
    outline = parts.outline(())
    first, again, other = (projector(parts.load(outline, seed).state_dict()) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)
    # As transformers begins a Linear: a normal distribution of 0.02, no bias; a norm of ones.
    weight = first[f"{PREFIX}linear_1.weight"]
    assert 0.018 < weight.std() < 0.022
    assert torch.count_nonzero(first[f"{PREFIX}linear_1.bias"]) == 0
    assert torch.equal(first[f"{PREFIX}norm.weight"], torch.ones(64))
