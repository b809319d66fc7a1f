"""Packing: dealt evenly, laid out without padding, computed as if every sample stood alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    SmolLM3Config,
)

from stages.artifacts.errors import ModelError
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import build_model
from stages.workshop.model.processing import IGNORED
from stages.workshop.training.batches import Batch, Collator, Loaded, PackedCollator
from stages.workshop.training.loss import answer_loss, normalize_tiles
from stages.workshop.training.packing import deal
from stages.workshop.training.samples import Sample
from stages.workshop.training.segments import NAME, segmented_attention

IMAGE, VOCABULARY = 3, 90
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LANGUAGE_MODELS = {
    "llama": LlamaConfig(**SHAPE),
    "llama, as many key heads": LlamaConfig(**SHAPE | {"num_key_value_heads": 4}),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2, windows": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": Qwen3Config(**SHAPE, head_dim=8),
    "smollm3": SmolLM3Config(**SHAPE, no_rope_layers=[1, 0]),
    "mistral, windows": MistralConfig(**SHAPE, sliding_window=7),
}


@given(lengths=st.lists(st.integers(1, 4096), min_size=1, max_size=60), data=st.data())
def test_dealing_loses_nothing_leaves_no_row_empty_and_is_balanced(lengths: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, len(lengths)))
    dealt = deal(lengths, rows)
    assert sorted(index for row in dealt for index in row) == list(range(len(lengths)))
    assert all(row == sorted(row) and row for row in dealt)
    assert len(dealt) == rows
    fills = [sum(lengths[index] for index in row) for row in dealt]
    # Graham: at most 4/3 of the best there is, which is no less than the mean and the longest sample.
    assert max(fills) <= max(sum(lengths) / rows, max(lengths)) * 4 / 3 + max(lengths) / 3
    # Whatever was dealt last to the fullest row went to the emptiest.
    assert max(fills) - min(lengths[index] for index in dealt[fills.index(max(fills))]) <= min(fills)
    assert deal(lengths, rows) == dealt


def test_dealing_is_worked_by_hand() -> None:
    assert deal([5, 2, 3, 1, 1, 4, 1, 2], 2) == [[0, 1, 6, 7], [2, 3, 4, 5]]
    assert deal([7, 7], 2) == [[0], [1]]


def build(text: Any, seed: int = 0) -> BlueLMVForConditionalGeneration:
    """The model around a language model; tiles of 16 pixels, 1 image token of 4 patches each."""
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        vision_use_head=False,
    )
    model = build_model(BlueLMVConfig(vision_config=vision, text_config=text, image_token_id=IMAGE), seed)
    return model.train()


def samples(seed: int = 0) -> list[Loaded]:
    """Six samples of 2 to 40 tokens, most with pictures, one of which begins with an answer."""
    rng = np.random.default_rng(seed)
    made = []
    for number, (length, tiles) in enumerate([(17, 2), (40, 5), (2, 0), (9, 1), (23, 0), (31, 3)]):
        ids = rng.integers(4, VOCABULARY, length).astype(np.int32)
        ids[rng.choice(np.arange(length // 2), tiles, replace=False)] = IMAGE
        is_answer = (np.arange(length) >= length - 1 - length // 3) & (ids != IMAGE)
        is_answer[0] |= number == 3
        pixels = torch.from_numpy(rng.integers(0, 256, (tiles, 3, 16, 16), dtype=np.uint8))
        made.append(Loaded(Sample(f"s{number}", ids, is_answer, (), tiles), (pixels,) if tiles else ()))
    return made


def step(model: BlueLMVForConditionalGeneration, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of a step of several passes, the mean over all of its learned tokens, and every gradient."""
    model.zero_grad()
    items = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
    total = 0.0
    packed = any("segments" in batch for batch in batches)
    with segmented_attention(model.language_model) if packed else nullcontext():
        for batch in batches:
            kept = ("input_ids", "position_ids", "segments")
            inputs: dict[str, Any] = {key: batch[key] for key in kept if key in batch}
            if "tiles" in batch:
                inputs["pixel_values"] = normalize_tiles(batch["tiles"], [0.5] * 3, [0.5] * 3)
            loss = answer_loss(model, inputs, batch["labels"], batch["positions"], items)
            loss.backward()
            total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=2e-7, msg=name)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_packed_equals_padded_equals_each_sample_alone(kind: str) -> None:
    """Loss and every gradient, with pictures; alone without any of our attention."""
    model, loaded = build(LANGUAGE_MODELS[kind]), samples()
    alone = step(model, [Collator(0)([one]) for one in loaded])
    padded = step(model, [Collator(0)(loaded)])
    packed = step(model, [PackedCollator()(loaded)])
    dealt = deal([one.sample.length for one in loaded], 2)
    passes = step(model, [PackedCollator()([loaded[index] for index in row]) for row in dealt])
    assert alone[0] > 1
    for found in (padded, packed, passes):
        assert_same(found, alone)


def test_a_neighbour_changes_nothing() -> None:
    """A sample's logits are the same to the bit, whatever stands before it: attention never leaves the sample."""
    model = build(LANGUAGE_MODELS["llama"]).eval()
    one, *others = samples()
    logits = []
    for neighbour in others:
        batch = PackedCollator()([neighbour, one])
        inputs = {key: batch[key] for key in ("input_ids", "position_ids", "segments")}
        tiles = normalize_tiles(batch["tiles"], [0.5] * 3, [0.5] * 3)
        with torch.no_grad(), segmented_attention(model.language_model):
            logits.append(model(**inputs, pixel_values=tiles, use_cache=False).logits[0, neighbour.sample.length :])
    for found in logits[1:]:
        torch.testing.assert_close(found, logits[0], rtol=1e-6, atol=1e-6)
    # The proof can fail: without segments the neighbour is seen.
    with torch.no_grad():
        seen = model(batch["input_ids"], pixel_values=tiles, use_cache=False).logits[0, others[-1].sample.length :]
    assert (seen - logits[0]).abs().max() > 1e-2


def test_segments_equal_transformers_own_block_diagonal_mask() -> None:
    model, batch = build(LANGUAGE_MODELS["qwen2"]).eval(), PackedCollator()(samples())
    tiles = normalize_tiles(batch["tiles"], [0.5] * 3, [0.5] * 3)
    inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "pixel_values": tiles}
    with torch.no_grad():
        theirs = model(**inputs, use_cache=False).logits
        with segmented_attention(model.language_model):
            ours = model(**inputs, segments=batch["segments"], use_cache=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_packs_as_well() -> None:
    model, loaded = build(LANGUAGE_MODELS["llama"]), samples()
    with torch.autocast("cpu", torch.bfloat16):
        packed, padded = step(model, [PackedCollator()(loaded)]), step(model, [Collator(0)(loaded)])
    assert packed[0] == pytest.approx(padded[0], rel=2e-3)


def test_a_layout_is_written_out() -> None:
    one = Sample("a", np.array([5, 6, 7], np.int32), np.array([False, True, True]), (), 0)
    two = Sample("b", np.array([8, 9], np.int32), np.array([True, True]), (), 0)
    batch = PackedCollator()([Loaded(one, ()), Loaded(two, ())])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    # The first token of the second sample is an answer's, but nothing of its own stands before it.
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9]]
    assert batch["positions"].tolist() == [0, 1, 3]
    assert (batch["segments"], batch["tokens"]) == ((3, 2), 5)
    assert "tiles" not in batch


def test_all_tiles_of_a_pack_are_one_call_of_the_tower() -> None:
    model, loaded = build(LANGUAGE_MODELS["llama"]), samples()
    calls: list[torch.Size] = []
    model.vision_tower.encoder.layers[0].register_forward_pre_hook(lambda layer, inputs: calls.append(inputs[0].shape))
    for collate in (Collator(0), PackedCollator()):
        calls.clear()
        step(model, [collate(loaded)])
        assert calls == [torch.Size([11, 4, 16])]


@pytest.mark.parametrize("collate", [Collator(0), PackedCollator()], ids=["padded", "packed"])
def test_recomputed_activations_give_the_same_gradients(collate: Callable[[Any], Batch]) -> None:
    """Gradient checkpointing of tower and language model, which passes the segments through."""
    model, loaded = build(LANGUAGE_MODELS["llama"]), samples()
    plain = step(model, [collate(loaded)])
    ran: list[str] = []
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_pre_hook(lambda *call, name=name: ran.append(name))
    model.activation_checkpointing_enable()
    assert_same(step(model, [collate(loaded)]), plain)
    assert len(set(ran)) == 4
    assert {name: ran.count(name) for name in ran} == dict.fromkeys(ran, 2)


@pytest.fixture
def llama() -> Iterator[Any]:
    model = AutoModelForCausalLM.from_config(LANGUAGE_MODELS["llama"]).eval()
    with segmented_attention(model):
        yield model
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("rows", "segments", "what"),
    [
        (1, (3, 3), "1 rows of 7 tokens for segments of 6 tokens"),
        (2, (3, 4), "2 rows of 7 tokens for segments of 7 tokens"),
    ],
)
def test_segments_that_are_not_the_rows_are_refused(
    llama: Any, rows: int, segments: tuple[int, ...] | None, what: str
) -> None:
    with pytest.raises(ModelError, match=what):
        llama(torch.ones(rows, 7, dtype=torch.long), segments=segments, use_cache=False)


def test_without_segments_rows_are_samples(llama: Any) -> None:
    """What evaluation during a packed training sees: batches padded on the right."""
    ids = torch.arange(4, 18).reshape(2, 7)
    assert llama.config._attn_implementation == NAME
    found = llama(ids, use_cache=False).logits
    llama.set_attn_implementation("sdpa")
    expected = llama(ids, use_cache=False).logits
    llama.set_attn_implementation(NAME)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
