"""Tokenizers of public models: read without remote code, and taught to hold a conversation about pictures.

What a language model's tokenizer lacks is added, what it has is kept: an image token, a chat template with the tokens
it writes, an end of answers, and a padding token that is no word of a prompt. (PyTorch's embedding never learns the
padding's row, so padding with the end of an answer, as many models do, would keep that token from being learned.)
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken
from transformers import AutoTokenizer

from stages.artifacts.errors import ModelError
from stages.workshop.model.public.chat_templates import named_template
from stages.workshop.model.tokenizer import END_OF_TEXT, IM_END, IM_START, IMAGE_TOKEN

TemplateName = Literal["chatml", "vicuna", "llama3"]
_PAD = "<|pad|>"
_LLAMA3_END = "<|eot_id|>"
_LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", _LLAMA3_END)


def read_tokenizer(folder: Path) -> Any:
    """transformers' fast tokenizer of a folder.

    Raises:
        ModelError: its files are missing or broken, or it has no fast form.
    """
    only_sentencepiece = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    if only_sentencepiece and importlib.util.find_spec("sentencepiece") is None:
        raise ModelError(
            f"{folder / 'tokenizer.model'} cannot be read without the package sentencepiece.",
            "This model's tokenizer comes in SentencePiece's own format.",
            "Install it with: pip install sentencepiece",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder}: the tokenizer cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            "Prompts are made of its tokens.",
            "Download tokenizer.json (or tokenizer.model) and tokenizer_config.json again.",
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"{folder}: the tokenizer has no fast form.",
            "Devices read tokenizer.json.",
            "Convert it to tokenizer.json with transformers, then try again.",
        )
    return tokenizer


def add_image_token(tokenizer: Any) -> None:
    """Makes sure there is an image token, one the tokenizer never splits."""
    _add(tokenizer, [IMAGE_TOKEN])


def teach_chat(tokenizer: Any, template: TemplateName | None = None) -> None:
    """Gives a language model's tokenizer an image token, a chat template with pictures, and stop and padding tokens.

    Args:
        tokenizer: changed in place.
        template: how a question looks to the model; None: Llama 3's where its tokens are known, else ChatML, whose two
            tokens are added where they are new.
    """
    known = tokenizer.get_vocab()
    name = template or ("llama3" if all(token in known for token in _LLAMA3) else "chatml")
    first_end = tokenizer.eos_token
    _add(tokenizer, [IMAGE_TOKEN])
    source = named_template(name)
    if name == "chatml":
        _add(tokenizer, [IM_START, IM_END])
        tokenizer.eos_token = IM_END
        # A model that was always shown <s> first leans on it.
        source = _opening(tokenizer) + source
    elif name == "llama3":
        _add(tokenizer, list(_LLAMA3))
        tokenizer.eos_token = _LLAMA3_END
    else:
        source = _variables(tokenizer) + source
    tokenizer.chat_template = source
    _settle_padding(tokenizer, first_end)


def _add(tokenizer: Any, texts: list[str]) -> None:
    """Adds special tokens; the tokenizer's own stay special."""
    have = tokenizer.get_added_vocab()
    new = [AddedToken(text, special=True, normalized=False) for text in texts if text not in have]
    if new:
        tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)


def _opening(tokenizer: Any) -> str:
    """jinja2 that writes the token which this tokenizer puts before every text, if it does."""
    ids = tokenizer("a")["input_ids"]
    begins = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return f"{{{{- {json.dumps(tokenizer.bos_token)} }}}}" if begins else ""


def _variables(tokenizer: Any) -> str:
    """jinja2 that sets what the vicuna template asks for."""
    values = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
    return "".join(f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in values.items())


def _settle_padding(tokenizer: Any, first_end: str | None) -> None:
    """The tokenizer's own padding where no prompt holds it, else its old end of text, else a new token."""
    written = tokenizer.chat_template
    known = tokenizer.get_vocab()
    candidates = (tokenizer.pad_token, first_end, tokenizer.unk_token, END_OF_TEXT)
    unused = (text for text in candidates if text in known and text != tokenizer.eos_token and text not in written)
    pad = next(unused, _PAD)
    if pad == _PAD:
        _add(tokenizer, [_PAD])
    tokenizer.pad_token = pad
