"""Conversations with `bluelm chat`: scripted through a pipe, and typed at a pseudo-terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bluelm_cli.conversation import picture_path, printable

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


def test_printable_keeps_the_terminal_to_itself() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\tç你🙂\x9b1m") == "a[2Jb\n\tç你🙂1m"


def test_picture_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spaced = tmp_path / "a b.png"
    spaced.write_bytes(b"")
    for words in (str(spaced), f'"{spaced}"', "~/a b.png", "~/a\\ b.png"):
        assert picture_path(words) == spaced, words
    assert picture_path("it's unfinished") == Path("it's unfinished")


class Person:
    """Types into a pseudo-terminal and reads what appears there."""

    def __init__(self, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "bluelm_cli", "chat", *words]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, "TERM": "dumb"}
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, words: str, seconds: float = 60) -> str:
        """What appeared up to and with these words, from where the last wait ended."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, f"waited for {words!r}, saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"it ended before {words!r}: {self.seen!r}") from None
        found, _, self.seen = self.seen.partition(words)
        return found + words

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C: the terminal would send it to the program in front."""
        self.process.send_signal(signal.SIGINT)

    def code(self) -> int:
        """The exit code, once it has ended; output is read on, so that it can."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:
                    break
        return self.process.wait(60)


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sit_down(*words: object) -> Person:
        people.append(Person([str(word) for word in words]))
        return people[-1]

    yield sit_down
    for each in people:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        os.close(each.master)


@pytest.mark.slow  # waits for a pty: too tight on a busy machine
def test_a_person_at_a_terminal(person: Any, variant: Any, photo: Path) -> None:
    endless = variant("prompt", eos_token_ids=[])  # answers until it is stopped
    user = person(endless, "--threads", 1, "--max-tokens", 3000)
    user.wait_for("> ")
    user.type(f"/image {photo}\n")
    user.wait_for("is being encoded")
    user.wait_for("> ")
    user.type("What?\n")
    user.wait_for("What?")
    time.sleep(0.1)
    user.interrupt()
    user.wait_for("Ctrl-C again")
    user.wait_for("> ")
    user.type("/images\n")
    user.wait_for("7 tiles")
    user.wait_for("> ")
    user.interrupt()
    user.wait_for("Ctrl-C again")
    user.interrupt()
    assert user.code() == 0
    assert "Traceback" not in user.seen


def test_ctrl_d_ends_and_figures_follow_an_answer(person: Any, tiny_onnx: Path) -> None:
    user = person(tiny_onnx, "--threads", 1, "--max-tokens", 3)
    user.wait_for("> ")
    user.type("Hello\n")
    user.wait_for("first token")
    user.wait_for("> ")
    user.type("\x04")
    assert user.code() == 0
