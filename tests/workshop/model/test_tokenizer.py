"""The tiny tokenizer: deterministic, complete, with its special tokens in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stages.artifacts.errors import UsageError
from stages.workshop.model.tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXTS = ["red circle 120", "blue square 7", "what colour is it?"] * 3


def test_the_same_texts_give_the_same_tokenizer() -> None:
    first, second = (train_tokenizer(iter(TEXTS), 300) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) <= 300


def test_special_tokens_come_first(tokenizer: Any) -> None:
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", "<|im_end|>", None)


@given(st.text())
def test_every_text_survives(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, 260)
    if not any(token in text for token in SPECIAL_TOKENS):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_numbers_are_read_digit_by_digit(tokenizer: Any) -> None:
    assert tokenizer.tokenize("120") == ["1", "2", "0"]


def test_saved_and_loaded_it_reads_the_same(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\n<image>What colour is 12?<|im_end|>\n"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.eos_token_id == tokenizer.eos_token_id


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="vocabulary size is 200"):
        train_tokenizer(TEXTS, 200)
