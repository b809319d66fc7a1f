"""Streaming: the pieces make up the decoded whole, and none of them ends inside a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.device.contract.names import TOKENIZER_FILE
from stages.device.runtime.text_stream import TextStream

Decode = Callable[[Sequence[int]], str]


def streamed(decode: Decode, ids: Sequence[int]) -> list[str]:
    stream = TextStream(decode)
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.fixture(scope="module")
def bytes_tokenizer(handmade: Path) -> Tokenizer:
    return Tokenizer.from_file(str(handmade / TOKENIZER_FILE))


def metaspace_tokenizer() -> Tokenizer:
    """Words with ▁ and a byte for whatever has none, as Llama 2's; its decoder strips the first space."""
    words = ["<unk>", *[f"<0x{value:02X}>" for value in range(256)], "▁the", "▁cat", "s", "▁", "e", "t", "h"]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_text_arrives_whole_and_in_whole_characters(bytes_tokenizer: Tokenizer, text: str) -> None:
    ids = bytes_tokenizer.encode(text).ids  # one token a byte: every character longer than one arrives in parts
    pieces = streamed(bytes_tokenizer.decode, ids)
    assert "".join(pieces) == text
    held_back = "\ufffd" not in text
    assert not held_back or all("\ufffd" not in piece for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_still_add_up_to_the_whole(bytes_tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(bytes_tokenizer.decode, ids)) == bytes_tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(257, 263), st.sampled_from(["é", "你", "🙂"])), max_size=12))
def test_decoders_that_treat_the_first_token_apart(parts: list[int | str]) -> None:
    tokenizer = metaspace_tokenizer()
    ids = [i for part in parts for i in ([part] if isinstance(part, int) else [1 + b for b in part.encode()])]
    assert "".join(streamed(tokenizer.decode, ids)) == tokenizer.decode(ids)


def test_text_is_shown_as_soon_as_it_is_certain(bytes_tokenizer: Tokenizer) -> None:
    ids = bytes_tokenizer.encode("a🙂b").ids
    assert streamed(bytes_tokenizer.decode, ids) == ["a", "", "", "", "🙂", "b", ""]


def test_an_unfinished_character_is_shown_at_the_end(bytes_tokenizer: Tokenizer) -> None:
    ids = bytes_tokenizer.encode("a🙂").ids[:-1]
    assert streamed(bytes_tokenizer.decode, ids) == ["a", "", "", "", "\ufffd"]


def test_a_trained_tokenizer_with_merges_across_characters() -> None:
    text = "émigré naïve 你好你好 🙂🙃 " * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet))
    pieces = streamed(tokenizer.decode, tokenizer.encode(text).ids)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
