"""Conversations with `bluelm chat`, scripted through a pipe (at a terminal: test_terminal.py)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Bluelm = Callable[..., Any]
QUICK = ("--max-tokens", 6, "--threads", 1)


def piped(bluelm: Bluelm, monkeypatch: pytest.MonkeyPatch, lines: list[str], *words: Any) -> Any:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    return bluelm("chat", *words, *QUICK)


def test_a_scripted_conversation(bluelm: Bluelm, tiny_onnx: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = bluelm("chat", tiny_onnx, "--image", photo, "--prompt", "What?", *QUICK).out
    lines = [
        f"/image {photo}",
        "/images",
        "What?",
        "",
        "/images",
        "Sure?",
        "/stats",
        "/reset",
        "/images",
        "/exit",
        "no",
    ]
    done = piped(bluelm, monkeypatch, lines, tiny_onnx)
    assert done.code == 0, done.err
    assert done.out.startswith(single)
    assert "not asked about yet" in done.err
    assert f"{photo}: 3:2, 7 tiles, 112 tokens" in done.err
    assert "2 answers" in done.err and "reused" in done.err
    assert "No pictures yet" in done.err.split("Forgotten")[1]
    assert "no" not in done.err.splitlines()  # what follows /exit is not read


def test_a_bad_picture_does_not_end_a_conversation(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:20000])
    lines = [
        "/image none.png",
        "Hello?",
        f"/image {cut}",
        "What?",
        "Still there?",
        "/bogus",
        "/image",
        "/help",
        "/stats",
    ]
    done = piped(bluelm, monkeypatch, lines, tiny_onnx, "--image", tmp_path / "first.png")
    assert done.code == 0, done.err
    for words in ("first.png does not exist", "none.png does not exist", "cut.png is a broken picture"):
        assert words in done.err
    assert "The question was not answered." in done.err
    assert "2 answers" in done.err
    assert "/bogus is neither a command nor a picture" in done.err
    assert "Which picture?" in done.err and "/reset " in done.err


def test_a_dropped_path_names_a_picture(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (str(photo), f"'{photo}'", str(photo).replace(" ", "\\ ")):
        done = piped(bluelm, monkeypatch, [line, "/images"], tiny_onnx)
        assert f"{photo}: " in done.err, line
    long = "x" * 5000
    assert "cannot" not in piped(bluelm, monkeypatch, [f"/{long}"], tiny_onnx).err


def test_an_overflow_does_not_end_a_conversation(
    bluelm: Bluelm, variant: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = variant("decoder", max_context=150)
    done = piped(bluelm, monkeypatch, [f"/image {photo}", "x" * 200, "/reset", "Hello?", "/stats"], model)
    assert done.code == 0
    assert "this model holds 150" in done.err and "1 answers" in done.err


def test_the_oldest_turns_are_forgotten_with_a_notice(
    bluelm: Bluelm, variant: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = variant("decoder", max_context=260)
    lines = [f"/image {photo}", "What?", "Sure?", "y" * 60, "z" * 60, "/images"]
    done = piped(bluelm, monkeypatch, lines, model)
    assert done.code == 0
    assert "The model holds 260 tokens: the" in done.err and "with a picture were forgotten" in done.err
    assert "No pictures yet" in done.err.split("forgotten")[-1]


def test_a_conversation_goes_on_from_a_file(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = tmp_path / "talk", tmp_path / "notes.txt"
    other.write_text("mine")
    lines = [f"{photo}".replace(" ", "\\ ") + " What?", f"/save {file}", "Sure?", f"/save {file}", f"/save {other}"]
    whole = piped(bluelm, monkeypatch, lines, tiny_onnx)
    assert whole.code == 0 and whole.err.count("Saved: ") == 2
    assert f"{other} is there already" in whole.err and other.read_text() == "mine"
    lines = [f"/load {file}", "And?", f"/save {file}", "/load", "/save", f"/load {other}", "/load none", "/stats"]
    on = piped(bluelm, monkeypatch, lines, tiny_onnx)
    assert "Loaded: 2 questions and answers, 1 pictures" in on.err and "Saved: " in on.err
    for words in ("Which conversation?", "Into which file?", "is no saved conversation", "none cannot be read"):
        assert words in on.err, words
    direct = piped(bluelm, monkeypatch, [f"/image {photo}", "What?", "Sure?", "And?"], tiny_onnx)
    assert direct.out.endswith(on.out)
    taken = piped(bluelm, monkeypatch, ["Hi?", f"/save {file}"], tiny_onnx)  # another conversation's
    assert f"{file} is there already" in taken.err


def test_an_empty_conversation_is_not_saved_and_nothing_is_drawn_into_a_pipe(
    bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"/save {tmp_path / 'talk'}", "/preview", f"/image {photo}", "/preview 2", "/preview", "/stats"]
    done = piped(bluelm, monkeypatch, lines, tiny_onnx)
    for words in ("nothing to save yet", "No pictures yet", "There is no picture 2", "drawn on terminals alone"):
        assert words in done.err, words
    assert "Nothing was answered yet" in done.err and "\x1b" not in done.err + done.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("https://example.org/a.png", "is not fetched"),
        ("file://elsewhere/a.png", "lies on elsewhere"),
        ("/image https://example.org/a.png", "is not fetched"),
        ("/paste", "clipboard"),
        ("/tmp/no-such-picture.png", "is neither a command nor a picture"),
        ("/image /dev/null", "/dev/null is not a regular file"),
        ("/load /dev/null", "/dev/null is not a regular file"),
        ("/image \x1b[2Jno.png", "[2Jno.png does not exist"),
    ],
)
def test_every_bad_line_has_its_message(
    bluelm: Bluelm, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.setenv("PATH", "")
    done = piped(bluelm, monkeypatch, [line, "/help"], tiny_onnx)
    assert done.code == 0 and done.out == ""
    assert words in done.err and "/reset" in done.err and "\x1b" not in done.err
