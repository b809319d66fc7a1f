"""A joined model against transformers' own: the same logits as the language model, the same features as the tower."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from stages.artifacts.errors import ModelError
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.checkpoint import load_checkpoint, save_checkpoint
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.tokenizer import IM_END, IM_START, train_tokenizer
from stages.workshop.training.parts import FromParts
from stages.workshop.training.sources import Outline

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
}


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)


def plain_tokenizer(folder: Path, kept: tuple[str, ...] = (), **fields: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with one end of text and whichever of our special tokens a model has already."""
    content = json.loads(train_tokenizer(["hello world"], 262).backend_tokenizer.to_str())
    gone = [token for token in (IM_START, IM_END, "<image>") if token not in kept]
    words = [word for word in content["model"]["vocab"] if word not in gone]
    content["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    content["added_tokens"] = [
        {**added, "id": words.index(added["content"])}
        for added in content["added_tokens"]
        if added["content"] not in gone
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), **{"eos_token": "<|endoftext|>", **fields}
    )
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "siglip"
    model = SiglipVisionModel(SiglipVisionConfig(**VISION))
    randomize(model)
    model.save_pretrained(folder)
    return folder


# Architecture → configuration for a vocabulary of so many tokens. Qwen pads its vocabulary beyond its tokens.
TEXTS: dict[str, Callable[[int], PretrainedConfig]] = {
    "llama": lambda size: LlamaConfig(**SIZES, vocab_size=size, tie_word_embeddings=False),
    "llama 3": lambda size: LlamaConfig(
        **SIZES,
        vocab_size=size,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "smollm": lambda size: LlamaConfig(
        **{**SIZES, "num_attention_heads": 8}, vocab_size=size, tie_word_embeddings=True
    ),
    "qwen2": lambda size: Qwen2Config(**SIZES, vocab_size=size + 9, tie_word_embeddings=True),
    "qwen2.5, untied": lambda size: Qwen2Config(**SIZES, vocab_size=size + 9, tie_word_embeddings=False),
    "qwen3": lambda size: Qwen3Config(**SIZES, head_dim=16, vocab_size=size + 9, tie_word_embeddings=True),
}


def joined(vision: Path, llm: Path) -> tuple[Outline, BlueLMVForConditionalGeneration]:
    parts = FromParts(vision, llm)
    outline = parts.outline(())
    return outline, parts.load(outline, seed=0).eval()


@pytest.mark.parametrize("name", TEXTS)
def test_language_logits_equal_the_language_models_own(name: str, tower: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(tmp_path / "llm", kept=(IM_START, IM_END) if "qwen" in name else ())
    alone = AutoModelForCausalLM.from_config(TEXTS[name](len(tokenizer))).eval()
    randomize(alone)
    alone.save_pretrained(tmp_path / "llm")
    outline, model = joined(tower, tmp_path / "llm")
    known = len(tokenizer)
    ids = torch.randint(0, known, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = alone(ids).logits[..., :known], model(input_ids=ids).logits[..., :known]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if name == "qwen3":
        assert model.language_model.model.layers[0].self_attn.q_norm.weight.std() > 0.1
    # Tied stays tied, before and after a checkpoint, and every token has its row.
    text = model.language_model
    rows = text.get_input_embeddings().weight.shape[0]
    assert rows == outline.config.text_config.vocab_size >= len(outline.processor.tokenizer)
    save_checkpoint(model, outline.processor, tmp_path / "joined")
    again, processor = load_checkpoint(tmp_path / "joined")
    for kept in (model, again):
        tied = kept.language_model.lm_head.weight is kept.get_input_embeddings().weight
        assert tied == alone.config.tie_word_embeddings
    assert processor.tokenizer.get_vocab() == outline.processor.tokenizer.get_vocab()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits[..., :known], expected, rtol=1e-5, atol=1e-5)


def test_parts_in_bfloat16_are_trained_in_float32(tower: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(tmp_path / "llm")
    alone = AutoModelForCausalLM.from_config(TEXTS["llama"](len(tokenizer)))
    randomize(alone)
    alone.to(torch.bfloat16).save_pretrained(tmp_path / "llm")
    SiglipVisionModel.from_pretrained(tower).to(torch.bfloat16).save_pretrained(tmp_path / "tower")
    _, model = joined(tmp_path / "tower", tmp_path / "llm")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    for name, value in alone.state_dict().items():
        assert torch.equal(model.language_model.state_dict()[name][: len(value)], value.float()), name
    mean = alone.get_input_embeddings().weight.float().mean(dim=0)
    torch.testing.assert_close(model.get_input_embeddings().weight[-3:], mean.expand(3, -1))


@pytest.mark.parametrize("padded", [0, 9])
def test_new_tokens_start_at_the_mean_of_the_known(padded: int, tower: Path, tmp_path: Path) -> None:
    """Also where a padded vocabulary has rows for them that nothing ever trained."""
    known = len(plain_tokenizer(tmp_path / "llm"))
    alone = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=known + padded, tie_word_embeddings=False))
    randomize(alone)
    alone.save_pretrained(tmp_path / "llm")
    outline, model = joined(tower, tmp_path / "llm")
    tokenizer = outline.processor.tokenizer
    new = [tokenizer.convert_tokens_to_ids(token) for token in (IM_START, IM_END, "<image>")]
    assert sorted(new) == [known, known + 1, known + 2]
    assert outline.config.text_config.vocab_size == (known + padded if padded else known + 3)
    before, after = alone.state_dict(), model.language_model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = before[name][:known].mean(dim=0)
        torch.testing.assert_close(after[name][new], mean.expand(3, -1))
        untouched = [row for row in range(known + padded) if row not in new]
        assert torch.equal(after[name][untouched], before[name][untouched])


def test_vision_features_equal_the_towers_own(tower: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(tmp_path / "llm")
    LlamaConfig(**SIZES, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "llm")
    AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "llm")
    whole = SiglipModel(
        SiglipConfig(text_config={**VISION, "vocab_size": 99, "num_hidden_layers": 1}, vision_config=VISION)
    ).eval()
    randomize(whole, seed=7)
    whole.save_pretrained(tmp_path / "whole")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for folder, alone in ((tower, SiglipVisionModel.from_pretrained(tower).eval()), (tmp_path / "whole", whole)):
        _, model = joined(folder, tmp_path / "llm")
        tower_of = alone.vision_model if isinstance(alone, SiglipModel) else alone
        with torch.no_grad():
            expected = tower_of(pixel_values=pixels).last_hidden_state
            found = model.get_vision_features(pixels)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_naflex_is_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    naflex = Siglip2Model(
        Siglip2Config(text_config={**small, "vocab_size": 99}, vision_config={**small, "patch_size": 8})
    )
    naflex.save_pretrained(tmp_path / "naflex")
    plain_tokenizer(tmp_path / "llm")
    LlamaConfig(**SIZES, vocab_size=260).save_pretrained(tmp_path / "llm")
    with pytest.raises(ModelError, match="is a NaFlex SigLIP 2") as caught:
        FromParts(tmp_path / "naflex", tmp_path / "llm").outline(())
    assert "fixed-resolution" in caught.value.fix


def test_conversations_are_learned_in_the_models_own_words(tower: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(tmp_path / "llm", kept=(IM_START, IM_END), pad_token=IM_END, eos_token=IM_END)
    AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "llm")
    outline = FromParts(tower, tmp_path / "llm").outline(())
    found = outline.processor.tokenizer
    # <|im_end|> ends answers, so it must not be the padding, whose row PyTorch never trains.
    assert found.eos_token == IM_END
    assert found.pad_token not in (IM_END, IM_START, "<image>")
    assert outline.config.text_config.pad_token_id == found.pad_token_id
    prompt = outline.processor.prompts.encode([user("hi", images=1), assistant("yo")], [4])
    assert found.pad_token_id not in prompt.ids
    answer = [token for token, said in zip(prompt.ids, prompt.is_answer, strict=True) if said]
    assert found.decode(answer) == f"yo{IM_END}"
