"""A small byte-level BPE tokenizer, trained on the texts a model will learn: deterministic, no downloads."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stages.artifacts.errors import UsageError
from stages.device.prompt.template import default_template

IM_START, IM_END, IMAGE_TOKEN, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<image>", "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, IMAGE_TOKEN)
_BYTES = 256


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int = 4096) -> PreTrainedTokenizerFast:
    """Trains a tokenizer for our chat template.

    Args:
        texts: what to learn merges from; read once. Special tokens are put in front of the vocabulary: ids 0 to 3.
        vocab_size: the most tokens, special ones included. Few texts give fewer.
        max_length: the model's context length, recorded in the tokenizer.

    Raises:
        UsageError: the vocabulary cannot hold the bytes and the special tokens.
    """
    least = _BYTES + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise UsageError(
            f"The vocabulary size is {vocab_size}.",
            f"Every text must be writable: {_BYTES} bytes and {len(SPECIAL_TOKENS)} special tokens.",
            f"Choose at least {least}.",
        )
    tokenizer = Tokenizer(models.BPE())
    # One digit a token, as in Llama: numbers are read digit by digit.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[IM_START, IMAGE_TOKEN],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    fast.chat_template = default_template()
    return fast
