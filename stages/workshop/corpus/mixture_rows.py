"""Drawn rows as lines of a corpus: named by their source, their pictures in place or copied."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from stages.artifacts.errors import DataError
from stages.workshop.corpus.llava import Refer, as_llava
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.row import Row


def of_source(source: str, row: Row, copy: int = 0, copies: int = 1) -> Row:
    """A row of a mixture. Its name is its source's and its own, with a number from the second time on.

    Args:
        source: name of its source.
        row: the row there, which may be one of several copies already.
        copy: which of its copies, from 0.
        copies: how many any row of the source has at most.
    """
    again = f"#{copy + 1}" if copy else ""
    return replace(row, name=f"{source}/{row.name}{again}", repeat=(row.repeat - 1) * copies + copy + 1)


def line_of(source: str, row: Row, refer: Refer) -> str:
    """A row of a mixture as a line of JSON, with the name of its source."""
    return json.dumps({**as_llava(row, refer), "source": source}, ensure_ascii=False)


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
