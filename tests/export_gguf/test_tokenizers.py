"""Tokenizers in GGUF: llama.cpp reads text as we read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stages.artifacts.events import result_of
from stages.export_gguf import GgufConfig, run
from stages.workshop.graph.gguf_tokenizer import RULES
from stages.workshop.model.tokenizer import train_tokenizer

WORDS = ["What colour is the shape? It's red, isn't it? 12 squares, 345 circles."] * 4
TEXTS = (
    "What colour is the shape?",
    "It's 1234 circles,  two   spaces\nand a line\n\n",
    "<|im_start|>user\nred?<|im_end|>\n",
    "Grüße, 你好 ☺",
    " leading",
)


def byte_level(splitter: Any, normalizer: Any = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))


def pieces_of_words() -> PreTrainedTokenizerFast:
    """SentencePiece BPE as Llama 2 and MiniCPM have it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return trained(tokenizer, [], first)


def trained(tokenizer: Tokenizer, alphabet: list[str], first: Any = ()) -> PreTrainedTokenizerFast:
    ours = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400 + len(first), special_tokens=[*first, *ours], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS + list(TEXTS), trainer=trainer)
    # The trainer makes every first token a special one; bytes are none.
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [one for one in values["added_tokens"] if not one["content"].startswith("<0x")]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = "{{ messages[0].content }}"
    return fast


def split(pattern: str) -> Any:
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return pre_tokenizers.Sequence(steps)


QWEN2_RULE = next(rule[0] for rule, name in RULES.items() if name == "qwen2")
TOKENIZERS: dict[str, Callable[[], Any]] = {
    "ours": lambda: train_tokenizer(WORDS + list(TEXTS), 400),
    "gpt-2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "qwen2": lambda: byte_level(split(QWEN2_RULE), normalizers.NFC()),
    "sentencepiece": pieces_of_words,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_is_read_as_we_read_it(kind: str, make_checkpoint: Any, llama: Any, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    checkpoint = make_checkpoint({"model_type": "llama", "num_hidden_layers": 1}, tokenizer=tokenizer)
    result_of(run(GgufConfig(pictures=False), checkpoint, tmp_path / "gguf"))
    found = llama(tmp_path / "gguf" / "model.gguf", [], texts=TEXTS)
    for index, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found[f"ids-{index}"].tolist() == ids, text


def test_a_tokenizer_with_a_rule_of_its_own_is_refused(make_checkpoint: Any, bluelm: Any) -> None:
    tokenizer = byte_level(pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]))
    done = bluelm(
        "export", make_checkpoint({"model_type": "llama"}, tokenizer=tokenizer), "--format", "gguf", "--out", "x"
    )
    assert done.code == 2
    assert "it splits text by a rule of its own" in " ".join(done.err.split())
