"""Drawn rows as lines of a corpus: named by their source, their pictures in place or copied."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from stages.artifacts.errors import DataError
from stages.workshop.corpus.llava import Refer, as_llava
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import Row


def line_of(source: str, row: Row, copy: int, refer: Refer) -> str:
    """A row as a line of JSON. Its name is its source's and its own, with a number from the second time on."""
    content = as_llava(row, refer)
    again = f"#{copy + 1}" if copy else ""
    return json.dumps({**content, "id": f"{source}/{row.name}{again}", "source": source}, ensure_ascii=False)


def picture_key(picture: Picture) -> int:
    """64 bits that tell a picture from others."""
    name = f"{picture.root}\0{picture.name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def tokenizer_file(given: Path) -> Path:
    """The `tokenizer.json` that a path means: itself, or the one in a folder."""
    return given / "tokenizer.json" if given.is_dir() else given


def token_counter(tokenizer: Path) -> Callable[[Row], int]:
    """Counts the tokens of a row's texts: of what is said, without the template around it and without pictures.

    Raises:
        DataError: there is no tokenizer.
    """
    path = tokenizer_file(tokenizer)
    try:
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(
            f"{path} is no tokenizer: {error}.", "Tokens cannot be counted.", "Name a tokenizer.json or its folder."
        ) from error
    return functools.partial(_tokens, made)


def _tokens(tokenizer: Tokenizer, row: Row) -> int:
    texts = [turn.text for turn in row.turns]
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
