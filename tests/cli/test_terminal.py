"""`bluelm chat` as a person uses it, at a pseudo-terminal: on the shipped demo model; nothing is decided by a time."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from stages.artifacts.folder import ArtifactSpec, create
from stages.device.contract import names

# Only how long a broken program is waited for.
PATIENCE = 120.0
# What a terminal is told when a line begins to be edited, and how a person sees it.
BEGINS, READY = "\x1b[?2004h", "«a prompt»"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")
ASKS_FOR_CURSOR, CURSOR = b"\x1b[6n", b"\x1b[1;1R"


class Person:
    """Types into a pseudo-terminal and reads what appears there, escape sequences left out."""

    def __init__(self, words: list[str], variables: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 200, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bluelm_cli", "chat", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **variables},
        )
        os.close(slave)
        self._raw = b""
        self._read_so_far = 0

    @property
    def seen(self) -> str:
        """What appeared since the last wait ended."""
        text = self._raw.decode("utf-8", "ignore").replace(BEGINS, READY)
        return SEQUENCE.sub("", text)[self._read_so_far :]

    def wait_for(self, words: str) -> str:
        """What appeared up to and with these words, from where the last wait ended."""
        end = time.monotonic() + PATIENCE
        while words not in self.seen:
            assert time.monotonic() < end, f"waited for {words!r}, saw {self.seen!r}"
            assert self._read(), f"it ended before {words!r}: {self.seen!r}"
        found = self.seen.partition(words)[0] + words
        self._read_so_far += len(found)
        return found

    def type(self, line: str) -> None:
        """Types a line and presses Enter, once there is a prompt."""
        self.wait_for(READY)
        self.press(line + "\r")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C while an answer comes: the terminal would send it to the program in front."""
        self.process.send_signal(signal.SIGINT)

    def code(self) -> int:
        """The exit code, once it has ended; output is read on, so that it can."""
        end = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < end, self.seen
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        """Reads what comes; False once the program has ended and all was read."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self.master, 4096)
        except OSError:
            return False
        # A terminal answers where its cursor is.
        asked = (self._raw[-3:] + data).count(ASKS_FOR_CURSOR) - self._raw[-3:].count(ASKS_FOR_CURSOR)
        os.write(self.master, CURSOR * asked)
        self._raw += data
        return True


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sit_down(*words: object, **variables: str) -> Person:
        people.append(Person([str(word) for word in words], variables))
        return people[-1]

    yield sit_down
    for each in people:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        os.close(each.master)


@pytest.fixture
def demo(project_root: Path) -> Path:
    return project_root / "recipes" / "demo"


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A red circle and a blue square."""
    made = []
    for name, draw in (("a disc.png", ImageDraw.ImageDraw.ellipse), ("square.png", ImageDraw.ImageDraw.rectangle)):
        image = Image.new("RGB", (96, 96), "white")
        draw(ImageDraw.Draw(image), (20, 20, 76, 76), fill="red" if "disc" in name else "blue")
        image.save(tmp_path / name)
        made.append(tmp_path / name)
    return made[0], made[1]


def changed(source: Path, out: Path, change: Callable[[Path], object]) -> Path:
    """A copy of an exported model with something changed, its manifest in order."""
    with create(out, ArtifactSpec("onnx", "export", {})) as draft:
        for file in source.iterdir():
            if file.name not in ("artifact.json", "run.json"):
                (draft.path / file.name).write_bytes(file.read_bytes())
        change(draft.path)
    return out


def endless(folder: Path) -> None:
    """No token ends an answer."""
    path = folder / names.DEVICE_CONFIG_FILE
    text = path.read_text()
    assert '"eos_token_ids"' in text
    path.write_text(re.sub(r'"eos_token_ids":\s*\[[^\]]*\]', '"eos_token_ids": []', text))


def test_two_pictures_three_turns_save_and_load(
    person: Any, demo: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    circle, square = pictures
    saved = tmp_path / "talk.safetensors"
    user = person(demo, "--threads", 1)
    user.type(f"/image {circle}")
    user.wait_for("is being encoded")
    user.type("What shape is this?")
    user.wait_for("this?")
    first = user.wait_for("first token")
    user.wait_for(READY)
    user.press(f"\x1b[200~'{square}' \x1b[201~")  # dropped on the window: its encoding starts without Enter
    user.wait_for("square.png")
    user.press("What colour is it?\r")
    second = user.wait_for("first token")
    assert "image, 0 reused" not in second  # the first turn is not read again
    user.type("/images")
    assert "1 " in user.wait_for(f"{circle}: ")
    user.wait_for(f"{square}: ")
    user.type(f"/save {saved}")
    user.wait_for("Saved: ")
    user.type("What shape is the first?")
    third = user.wait_for("first token")
    user.type("/stats")
    figures = user.wait_for("peak")
    for words in ("3 answers", "reused from the KV cache", "time to first token", "encoding while typing saved"):
        assert words in figures, words
    assert "2 encoded, 0 found in memory, 0 found on disk" in figures
    user.wait_for(READY)
    user.press("\x04")
    assert user.code() == 0

    again = person(demo, "--threads", 1)
    again.type(f"/load {saved}")
    again.wait_for("Loaded: 2 questions and answers, 2 pictures")
    again.type("What shape is the first?")
    assert said(again.wait_for("first token")) == said(third) != ""
    again.type("/reset")
    again.wait_for("Forgotten")
    again.type(f"{circle} What shape is this?".replace("a disc", "a\\ disc"))
    assert said(again.wait_for("first token")) == said(first)
    again.type("/stats")
    assert "0 encoded, 1 found in memory, 0 found on disk" in again.wait_for("peak")
    again.type("/exit")
    assert again.code() == 0
    assert "Traceback" not in first + second + third + again.seen


def said(screen: str) -> str:
    """The answer on the last line that is neither prompt nor figures."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", screen)]
    lines = [line for line in lines if line and not line.startswith((">", "[", "«"))]
    return lines[-1] if lines else ""


def test_ctrl_c_stops_the_answer_and_not_the_program(
    person: Any, bluelm: Any, demo: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    circle, saved = pictures[0], tmp_path / "talk.safetensors"
    question = "What shape is this?"
    begins = bluelm("chat", demo, "--image", circle, "--prompt", question, "--json").json()["answer"]
    # What is not read from a terminal blocks who writes: the answer cannot end before it is interrupted.
    user = person(changed(demo, tmp_path / "endless", endless), "--threads", 1, "--max-tokens", 1800)
    user.type(f"'{circle}'")
    user.wait_for("is being encoded")
    user.type(question)
    user.wait_for(question)
    user.wait_for(begins)
    user.press("/im")  # typed ahead: no part of the answer on the screen, there at the next prompt
    user.interrupt()
    assert "/im" not in user.wait_for("(stopped)")
    user.wait_for(READY)
    user.wait_for("/im")
    user.press("ages\r")
    user.wait_for(f"{circle}: ")  # the question stays, with its answer as far as it came
    user.type(f"/save {saved}")
    user.wait_for("Saved: ")
    user.wait_for(READY)
    user.press("unfinished\x03")
    user.wait_for("Ctrl-C again")
    user.wait_for(READY)
    user.press("\x03")
    assert user.code() == 0
    other = person(demo)
    other.type(f"/load {saved}")
    other.wait_for("was talked with another model")
    other.type("/exit")
    assert other.code() == 0


def test_the_clipboard(person: Any, demo: Path, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "xclip").write_text(f"#!/bin/sh\nexec cat '{pictures[1]}'\n")
    (tools / "xclip").chmod(0o755)
    path = f"{tools}:/usr/bin:/bin"
    user = person(demo, "--threads", 1, PATH=path, DISPLAY=":0", WAYLAND_DISPLAY="")
    user.type("/paste")
    user.wait_for("clipboard-1.png is being encoded")
    user.wait_for(READY)
    user.press("\x16")  # Ctrl-V
    user.wait_for("clipboard-2.png is being encoded")
    (tools / "xclip").write_text("#!/bin/sh\necho 'Error: target image/png not available' >&2; exit 1\n")
    user.type("/paste")
    user.wait_for("There is no picture in the clipboard")
    user.type("/exit")
    assert user.code() == 0


def test_a_model_that_cannot_be_loaded_ends_it(person: Any, demo: Path, tmp_path: Path) -> None:
    broken = changed(demo, tmp_path / "broken", lambda folder: (folder / names.DECODER_FILE).write_bytes(b"broken"))
    user = person(broken)
    assert user.code() == 2
    assert "Error: " in user.seen and "Why: " in user.seen and "Fix: " in user.seen and "Traceback" not in user.seen


def test_it_draws_where_it_can_and_when_asked(person: Any, demo: Path, pictures: tuple[Path, Path]) -> None:
    user = person(demo, "--threads", 1, TERM="xterm-kitty")
    user.type(f"/image {pictures[0]}")
    user.wait_for("_Ga=T,f=100")
    user.type("/exit")
    assert user.code() == 0
    user = person(demo, "--threads", 1)
    user.type(f"/image {pictures[0]}")
    user.wait_for("is being encoded")
    user.wait_for(READY)
    assert "▀" not in user.seen and "_G" not in user.seen
    user.press("/preview\r")
    user.wait_for("▀" * 24)
    user.type("/exit")
    assert user.code() == 0


def test_ctrl_c_ends_a_script(demo: Path) -> None:
    script = subprocess.Popen(
        [sys.executable, "-m", "bluelm_cli", "chat", str(demo), "--threads", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert script.stdin is not None and script.stdout is not None
    script.stdin.write(b"Hello\n")
    script.stdin.flush()
    assert script.stdout.readline()
    script.send_signal(signal.SIGINT)
    assert b"Traceback" not in script.communicate(timeout=PATIENCE)[0]
    assert script.returncode == 130
