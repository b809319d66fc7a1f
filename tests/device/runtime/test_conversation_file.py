"""Saved conversations: they go on as if they had never been away; a bad file changes nothing and has its message."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from stages.artifacts.errors import ArtifactError, ImageError, UsageError
from stages.device.runtime.conversation import Conversation
from stages.device.runtime.conversation_file import KEY, load_conversation, save_conversation
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions

MODEL, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def talk(handmade: Path) -> Iterator[Callable[..., Conversation]]:
    engines: list[Engine] = []

    def make(model: str = MODEL) -> Conversation:
        engines.append(Engine(handmade, EngineOptions(threads=1, chunk=16, cache=False)))
        return Conversation(engines[-1], AnswerOptions(max_tokens=6), model)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[int], Path]:
    def make(seed: int) -> Path:
        path = tmp_path / f"{seed}.png"
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(path)
        return path

    return make


def said(talking: Conversation, text: str) -> Answer:
    return next(event for event in talking.ask(text) if isinstance(event, Answer))


@pytest.fixture
def saved(talk: Any, picture: Any, tmp_path: Path) -> Path:
    """Two turns about a picture, and a second picture that was not asked about yet."""
    talking = talk()
    talking.name(picture(1))
    said(talking, "What?")
    said(talking, "Sure?")
    talking.name(picture(2))
    save_conversation(talking, tmp_path / "talk")
    return tmp_path / "talk"


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_loaded_conversation_goes_on_as_if_it_had_stayed(talk: Any, picture: Any, saved: Path) -> None:
    stayed, loaded = talk(), talk()
    for path, text in ((picture(1), "What?"), (None, "Sure?")):
        if path is not None:
            stayed.name(path)
        said(stayed, text)
    stayed.name(picture(2))
    expected = said(stayed, "And this?")
    picture(1).unlink()  # what it became is in the file
    picture(2).unlink()
    assert load_conversation(loaded, saved) == 2
    found = said(loaded, "And this?")
    assert (found.text, found.prompt_tokens, found.image_tokens) == (
        expected.text,
        expected.prompt_tokens,
        expected.image_tokens,
    )
    assert loaded.messages == stayed.messages
    assert loaded.engine.album.counts.encoded == 0
    loaded.name(picture(1))
    said(loaded, "Again?")
    assert loaded.engine.album.counts.encoded == 0  # also the same picture, named again
    assert (saved.stat().st_mode & 0o077, list(saved.parent.glob(".*"))) == (0, [])


def change(path: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    note, tensors = contents(path)
    edit(note, tensors)
    save_file(tensors, path, {KEY: json.dumps(note)})


def _damage(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    next(iter(tensors.values()))[0, 0] += 1


def _spare(_: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["c" * 64] = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_damage, "the features of .* are damaged"),
        (_spare, "does not hold the features of its pictures"),
        (lambda _, tensors: tensors.popitem(), "does not hold the features of its pictures"),
        (lambda note, _: note.update(model=OTHER), "was talked with another model"),
        (lambda note, _: note.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda note, _: note.update(kind="corpus"), "kind: "),
        (lambda note, _: note.update(more=1), "more: Extra inputs"),
        (lambda note, _: note["turns"][0].update(pictures=[1]), "do not show the pictures one after the other"),
        (lambda note, _: note["turns"][0].update(question=""), "turns.0.question"),
        (lambda note, _: note["turns"][0].update(answer=3), "turns.0.answer"),
        (lambda note, _: note["pictures"][0].update(tiles=3), "are damaged"),
        (lambda note, _: note["pictures"][0].update(sha256="../x"), "pictures.0.sha256"),
    ],
)
def test_a_bad_file_has_its_message_and_changes_nothing(talk: Any, saved: Path, edit: Any, words: str) -> None:
    change(saved, edit)
    talking = talk()
    said(talking, "Hello?")
    before = list(talking.messages)
    with pytest.raises(ArtifactError, match=words) as caught:
        load_conversation(talking, saved)
    assert caught.value.why and caught.value.fix
    assert talking.messages == before and not talking.named


def test_what_is_no_conversation_is_refused(talk: Any, saved: Path, tmp_path: Path) -> None:
    cut, plain, pipe = tmp_path / "cut", tmp_path / "plain", tmp_path / "pipe"
    cut.write_bytes(saved.read_bytes()[:-100])
    save_file({"x": np.zeros(1, np.float32)}, plain)
    os.mkfifo(pipe)
    (tmp_path / "empty").write_bytes(b"")
    for path, words in (
        (cut, "or damaged"),
        (plain, "is no saved conversation"),
        (pipe, "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "empty", "or damaged"),
        (tmp_path / "none", "cannot be read: No such file"),
    ):
        with pytest.raises(ArtifactError, match=words):
            load_conversation(talk(), path)


def test_saving_refuses_what_it_cannot_do(talk: Any, picture: Any, saved: Path, tmp_path: Path) -> None:
    talking = talk()
    with pytest.raises(UsageError, match="nothing to save"):
        save_conversation(talking, tmp_path / "new")
    said(talking, "Hello?")
    before = saved.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        save_conversation(talking, saved)
    assert saved.read_bytes() == before
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_conversation(talking, tmp_path / "none" / "new")
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture(1).read_bytes()[:900])
    talking.name(broken)
    with pytest.raises(ImageError, match=r"broken\.png"):
        save_conversation(talking, tmp_path / "new")
    save_conversation(talking, saved, replace=True)
    assert len(contents(saved)[0]["turns"]) == 1
    assert not list(tmp_path.glob(".*"))
