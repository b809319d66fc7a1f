"""A tokenizer trained here, with our special tokens, and conversations to render."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.template import ChatTemplate, default_template

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
TEXTS = [
    "What colour is the shape? The shape is red.",
    "user assistant system\nblue 12 34",
    "<|im_ <ima ge> image end|>",
] * 4


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Byte-level, as Qwen's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return made


@pytest.fixture(scope="session")
def sentence_tokenizer() -> Tokenizer:
    """In the manner of Llama's SentencePiece: a space before the first word, bytes for unknown letters."""
    letters = sorted(
        {letter for text in TEXTS for letter in text.replace(" ", "▁")} | {"▁", "A", "S", "N", "U", "E", "R"}
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>", "<image>")])
    return made


@pytest.fixture
def encoder(tokenizer: Tokenizer) -> PromptEncoder:
    return PromptEncoder(tokenizer, ChatTemplate(default_template()))


@pytest.fixture(scope="session")
def encoder_of_session(tokenizer: Tokenizer) -> PromptEncoder:
    """For property tests, which may not take fixtures made anew for every test."""
    return PromptEncoder(tokenizer, ChatTemplate(default_template()))


@pytest.fixture
def hf_tokenizer(tokenizer: Tokenizer) -> Any:
    """The same tokenizer in transformers' hands."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
