"""A conversation as one file: what was said as JSON, what the pictures became as tensors.

    safetensors    metadata "conversation": the JSON below    tensors: <sha256 of a picture> [tokens, H] float32

The file appears whole or not at all. Nothing in it is run or followed: names of pictures are only shown.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.artifacts.atomic_file import write_atomically
from stages.artifacts.errors import ArtifactError, UsageError
from stages.device.contract.device_config import DeviceConfig
from stages.device.imaging.geometry import Grid, Size
from stages.device.prompt.messages import Message, assistant, count_images, user
from stages.device.runtime.album import PictureFeatures
from stages.device.runtime.conversation import Conversation

KEY = "conversation"
_WHY = "A conversation can only go on from a file that is whole."
_FIX = "Name a file that /save wrote, or start anew."
_DIGEST = "^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SavedPicture(_Strict):
    """A picture: the digest of its bytes, its name, its tiling, and the digest of its features."""

    sha256: str = Field(pattern=_DIGEST)
    name: str
    size: Size
    grid: Grid
    tiles: int = Field(ge=1)
    features: str = Field(pattern=_DIGEST)


class SavedTurn(_Strict):
    """A question about some pictures (indices), and its answer."""

    pictures: tuple[int, ...]
    question: str = Field(min_length=1)
    answer: str


class SavedConversation(_Strict):
    """The JSON of a saved conversation; pictures named after the last question are in no turn."""

    kind: Literal["conversation"] = "conversation"
    schema_version: Literal[1] = 1
    model: str
    pictures: tuple[SavedPicture, ...]
    turns: tuple[SavedTurn, ...]

    @model_validator(mode="after")
    def _in_order(self) -> SavedConversation:
        shown = [index for turn in self.turns for index in turn.pictures]
        if shown != list(range(len(shown))) or len(shown) > len(self.pictures):
            raise ValueError("the turns do not show the pictures one after the other")
        return self


def save_conversation(talk: Conversation, path: Path, *, replace: bool = False) -> None:
    """Writes a conversation, once the pictures that were named are encoded.

    Args:
        talk: it.
        path: the file.
        replace: it may be there already.

    Raises:
        UsageError: there is nothing to save, or the file is there already.
        BluelmError: a named picture cannot be encoded; it is no longer named.
        ArtifactError: the file cannot be written.
    """
    from safetensors.numpy import save

    pictures = [*talk.pictures, *talk.wait()]
    if not talk.messages and not pictures:
        raise UsageError("There is nothing to save yet.", "The conversation is empty.", "Ask something first.")
    if path.exists() and not replace:
        raise UsageError(f"{path} is there already.", "Saving would replace it.", "Choose another name.")
    saved = SavedConversation(
        model=talk.model,
        pictures=tuple(_saved(picture) for picture in pictures),
        turns=tuple(_turns(talk.messages)),
    )
    tensors = {picture.digest: np.ascontiguousarray(picture.features, np.float32) for picture in pictures}
    try:
        # Only its owner may read what was said.
        write_atomically(path, save(tensors, {KEY: saved.model_dump_json()}), private=True)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written: {error.strerror}.", "The conversation is not saved.", "Choose another place."
        ) from error


def load_conversation(talk: Conversation, path: Path) -> int:
    """Goes on with a saved conversation in the place of this one; how many turns it has.

    Raises:
        ArtifactError: the file is missing, damaged, no conversation, or another model's; nothing has changed then.
    """
    from safetensors import SafetensorError

    try:
        with _tensors(path) as file:
            saved = _parsed(path, (file.metadata() or {}).get(KEY))
            if saved.model != talk.model:
                raise ArtifactError(
                    f"{path} was talked with another model ({saved.model[:12]}, not {talk.model[:12]}).",
                    "What it made of the pictures means nothing to this one.",
                    "Start bluelm chat with the model of that conversation.",
                )
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}.", _WHY, _FIX) from error
    except SafetensorError as error:
        raise ArtifactError(f"{path} is no saved conversation, or damaged: {error}.", _WHY, _FIX) from error
    if set(found) != {picture.sha256 for picture in saved.pictures}:
        raise ArtifactError(f"{path} does not hold the features of its pictures and no others.", _WHY, _FIX)
    config = talk.engine.config
    pictures = [_restored(path, picture, found[picture.sha256], config) for picture in saved.pictures]
    _restore(talk, saved, pictures)
    return len(saved.turns)


def _restore(talk: Conversation, saved: SavedConversation, pictures: list[PictureFeatures]) -> None:
    asked = sum(len(turn.pictures) for turn in saved.turns)
    messages: list[Message] = []
    for turn in saved.turns:
        messages += [user(turn.question, images=len(turn.pictures)), assistant(turn.answer)]
    talk.reset()
    talk.messages, talk.pictures = messages, pictures[:asked]
    for picture in pictures:
        talk.engine.album.know(picture)
    for picture in pictures[asked:]:
        talk.name_encoded(picture)


def _saved(picture: PictureFeatures) -> SavedPicture:
    return SavedPicture(
        sha256=picture.digest,
        name=os.fsencode(picture.path).decode("utf-8", "replace"),
        size=picture.size,
        grid=picture.grid,
        tiles=picture.tiles,
        features=_digest(picture.features),
    )


def _turns(messages: list[Message]) -> Iterator[SavedTurn]:
    shown = 0
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        count = count_images([question])
        yield SavedTurn(pictures=tuple(range(shown, shown + count)), question=_text(question), answer=_text(answer))
        shown += count


def _text(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _restored(path: Path, saved: SavedPicture, values: NDArray[Any], config: DeviceConfig) -> PictureFeatures:
    wanted = (saved.tiles * config.vision.tokens_per_tile, config.decoder.hidden_size)
    if values.dtype != np.float32 or values.shape != wanted or _digest(values) != saved.features:
        raise ArtifactError(f"{path}: the features of {saved.name} are damaged.", _WHY, _FIX)
    if not np.isfinite(values).all():
        raise ArtifactError(f"{path}: the features of {saved.name} hold NaN or infinity.", _WHY, _FIX)
    return PictureFeatures(
        path=Path(saved.name),
        digest=saved.sha256,
        size=saved.size,
        grid=saved.grid,
        tiles=saved.tiles,
        features=values,
        encode_s=0.0,
        reused=True,
    )


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


@contextmanager
def _tensors(path: Path) -> Iterator[Any]:
    """The open file. A pipe, a device or a folder is refused before anything opens it."""
    from safetensors import safe_open

    if not stat.S_ISREG(path.stat().st_mode):
        raise ArtifactError(f"{path} is not a regular file.", _WHY, _FIX)
    with safe_open(path, "numpy") as file:
        yield file


def _parsed(path: Path, text: str | None) -> SavedConversation:
    if text is None:
        raise ArtifactError(f"{path} is no saved conversation.", _WHY, _FIX)
    try:
        return SavedConversation.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or KEY
        raise ArtifactError(f"{path}: {where}: {first['msg']}.", _WHY, _FIX) from problem
