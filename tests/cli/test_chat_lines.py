"""What of a line is a path; text made harmless; answers in blocks; previews; the line below the prompt."""

from __future__ import annotations

import base64
import io
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from bluelm_cli.chat_answer import MarkdownAnswer, split_blocks
from bluelm_cli.chat_line import PromptLines
from bluelm_cli.chat_paths import dropped, picture_path, split_question
from bluelm_cli.chat_preview import graphics_of, half_blocks, iterm2, kitty, sixel
from bluelm_cli.chat_text import printable, shown
from stages.artifacts.errors import UsageError


def test_printable_keeps_the_terminal_to_itself() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\tç你🙂\x9b1m") == "a[2Jb\n\tç你🙂1m"
    assert printable("a\u202eb\u2066c\ufeff\u2028d") == "abcd"  # nothing may turn the order of letters around
    kept = "में\u200c\u200d 👩\u200d💻\u3000。\xa0"
    assert printable(kept) == kept
    assert shown(Path("a\x1b]0;x\x07\nb.png")) == "a�]0;x��b.png"


@given(st.text())
def test_no_text_keeps_a_control_character(text: str) -> None:
    assert not set(printable(text)) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    assert printable(printable(text)) == printable(text)


@pytest.fixture
def spaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b.png", "c.jpg", "hosts"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "a b.png"


def test_picture_paths(spaced: Path) -> None:
    url = f"file://{spaced}".replace(" ", "%20")
    here = url.replace("file://", f"file://{socket.gethostname()}")
    for words in (str(spaced), f'"{spaced}"', "~/a b.png", "~/a\\ b.png", url, here, url.replace("//", "//localhost")):
        assert picture_path(words) == spaced, words
        assert dropped(words) == [spaced], words
    assert picture_path("it's unfinished") == Path("it's unfinished")
    assert dropped(f"'{spaced}' ~/c.jpg") == [spaced, spaced.parent / "c.jpg"]
    assert dropped("What is this?") == dropped("/none.png") == dropped("/" + "x" * 5000) == []
    for words in ("http://a/b.png", "file://other/a.png", "data:image/png;base64,AAAA"):
        with pytest.raises(UsageError):
            dropped(words)


def test_pictures_around_a_question(spaced: Path) -> None:
    other = spaced.parent / "c.jpg"
    quoted = f"'{spaced}'"
    assert split_question(f"{quoted} What's this?") == ([spaced], "What's this?")
    assert split_question(f"Which one? {quoted}  ~/c.jpg") == ([spaced, other], "Which one?")
    for line in (f"Is {quoted} mine?", f"What is in {spaced.parent}/hosts", "it's", "", str(other)):
        assert split_question(line) == ([], line)


TEXTS = st.lists(
    st.sampled_from(["word ", "\n", "\n\n", "- item", "```", "~~~~", "    code", "# head", "1. one"]), max_size=30
).map("".join)


@given(TEXTS, st.integers(0, 200))
def test_blocks_that_are_complete_never_change(text: str, cut: int) -> None:
    done, tail = split_blocks(text)
    assert done + tail == text
    assert text.startswith(split_blocks(text[:cut])[0])
    before = split_blocks(text[:cut])[0]
    assert done.startswith(before)


def test_code_and_lists_stay_together() -> None:
    assert split_blocks("One.\n\nTwo") == ("One.\n\n", "Two")
    assert split_blocks("```\na\n\nb")[0] == ""
    assert split_blocks("```\na\n\nb\n```\n\nc") == ("```\na\n\nb\n```\n\n", "c")
    assert split_blocks("- a\n\n  more")[0] == ""


def test_an_answer_is_drawn_as_markdown_whole_and_harmless() -> None:
    from rich.console import Console

    stream = io.StringIO()
    answer = MarkdownAnswer(Console(file=stream, force_terminal=True, width=60, height=20, color_system=None))
    text = "# Head\n\nA **bold** [link](http://evil.example)\x1b]8;;x\x07.\n\n- one\n- two\n\n```\nx = 1\n```\n"
    for letter in text:
        answer.push(letter)
    answer.end()
    out = stream.getvalue()
    assert "\x1b]8" not in out and "\x07" not in out
    assert "http://evil.example" in out  # where a link leads is seen
    final = out.rsplit("\x1b[2K", 1)[1]
    assert "x = 1" in final and "**" not in out.split("A bold")[-1]


def on_screen(sequences: str) -> list[str]:
    """What a terminal shows in the end; of the controls, cursor up, erase line, line feed and return are needed."""
    rows, x, y = [""], 0, 0
    for count, code, letter in re.findall(r"\x1b\[([0-9;?]*)([a-zA-Z])|([^\x1b])", sequences):
        rows += [""] * (y + 1 - len(rows))
        if code == "A":
            y -= int(count or 1)
        elif code == "K":
            rows[y] = ""
        elif letter == "\n":
            y, x = y + 1, 0
        elif letter == "\r":
            x = 0
        elif letter:
            rows[y] = rows[y].ljust(x)[:x] + letter + rows[y][x + 1 :]
            x += 1
    return [row.rstrip() for row in rows]


def test_drawing_again_and_again_leaves_the_blocks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr("bluelm_cli.chat_answer._INTERVAL", 0.0)
    stream = io.StringIO()
    answer = MarkdownAnswer(Console(file=stream, force_terminal=True, width=50, height=9, color_system=None))
    for letter in "It shows:\n\n- a **red** circle\n- a square\n\n```\nx = 1\n```\n\nDone, " + "word " * 30:
        answer.push(letter)
    answer.end()
    shows = [row for row in on_screen(stream.getvalue()) if row]
    assert shows[:5] == ["It shows:", " • a red circle", " • a square", " x = 1", "Done, " + "word " * 8 + "word"]
    assert " ".join(shows[4:]).count("word") == 30


@pytest.mark.parametrize(
    ("environment", "graphics"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({}, None),
    ],
)
def test_graphics_are_read_from_the_environment(environment: dict[str, str], graphics: str | None) -> None:
    assert graphics_of(environment) == graphics


@pytest.fixture
def image() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 4, (13, 17, 3)) * 85
    return Image.fromarray(values.astype(np.uint8))


def test_protocols_carry_the_picture(image: Image.Image) -> None:
    big = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    pieces = [piece.split(";", 1) for piece in kitty(big).split("\x1b_G")[1:]]
    assert [head[-1] for head, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"] and len(pieces) > 1
    sent = b"".join(base64.b64decode(body.removesuffix("\x1b\\")) for _, body in pieces)
    assert np.array_equal(Image.open(io.BytesIO(sent)), big)
    data = base64.b64decode(iterm2(image).split(":", 1)[1].removesuffix("\x07"))
    assert np.array_equal(Image.open(io.BytesIO(data)), image)


def test_sixels_are_the_pixels(image: Image.Image) -> None:
    text = sixel(image)
    palette = {int(i): tuple(map(int, c.split(";"))) for i, c in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", text)}
    body = re.sub(r"^.*?q\"[\d;]+|#\d+;2;\d+;\d+;\d+", "", text.removesuffix("\x1b\\"))
    found = np.full((*np.asarray(image).shape[:2], 3), -1)
    for band, rows in enumerate(body.rstrip("-").split("-")):
        for line in rows.split("$"):
            colour, letters = re.match(r"#(\d+)(.*)", line).groups()  # type: ignore[union-attr]
            plain = re.sub(r"!(\d+)(.)", lambda m: m[2] * int(m[1]), letters)
            for x, letter in enumerate(plain):
                for bit in range(6):
                    if (ord(letter) - 63) >> bit & 1:
                        found[6 * band + bit, x] = palette[int(colour)]
    assert np.abs(found - np.asarray(image, float) * 100 / 255).max() <= 1


def test_half_blocks_are_the_pixels(image: Image.Image) -> None:
    pixels = np.asarray(image)
    lines = half_blocks(image).splitlines()
    assert len(lines) == 7
    for row, line in enumerate(lines):
        cells = re.findall(r"\x1b\[38;2;(\d+;\d+;\d+)m(?:\x1b\[48;2;(\d+;\d+;\d+)m)?▀", line)
        for x, (upper, lower) in enumerate(cells):
            assert [int(v) for v in upper.split(";")] == pixels[2 * row, x].tolist()
            if 2 * row + 1 < len(pixels):
                assert [int(v) for v in lower.split(";")] == pixels[2 * row + 1, x].tolist()


class Actions:
    def __init__(self) -> None:
        self.pasted: list[str] = []

    def status(self) -> str:
        return "ready"

    def take_pasted(self, text: str) -> bool:
        self.pasted.append(text)
        return text.endswith(".png")

    def take_clipboard(self) -> None: ...


def lines(keys: str, **more: Any) -> tuple[PromptLines, Actions]:
    actions = Actions()
    source = more.pop("source")
    source.send_text(keys)
    return PromptLines(actions, ["/image", "/images"], source=source, screen=DummyOutput(), **more), actions


def test_a_dropped_picture_is_no_part_of_the_line() -> None:
    with create_pipe_input() as source:
        typed, actions = lines("Is \x1b[200~/a.png\x1b[201~it \x1b[200~red?\x1b[201~\r", source=source)
        assert typed.read() == "Is it red?"
        assert actions.pasted == ["/a.png", "red?"]
    with create_pipe_input() as source:
        typed, actions = lines("/image \x1b[200~/a.png\x1b[201~\r\x04", source=source)
        assert typed.read() == "/image /a.png" and actions.pasted == []
        assert typed.read() is None


def test_stopping_ends_the_line_and_ctrl_c_is_an_interrupt(tmp_path: Path) -> None:
    with create_pipe_input() as source:
        typed, _ = lines("abc\x03kept\r", source=source, history=tmp_path / "new" / "history")
        with pytest.raises(KeyboardInterrupt):
            typed.read()
        assert typed.read() == "kept"
        assert (tmp_path / "new" / "history").stat().st_mode & 0o077 == 0
        assert "+kept" in (tmp_path / "new" / "history").read_text()
        typed.stop()
        assert typed.read() is None


def test_completion_of_commands_and_paths(spaced: Path) -> None:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    with create_pipe_input() as source:
        typed, _ = lines("", source=source)
        completer: Any = typed._session.completer

        def completed(text: str) -> list[str]:
            return [found.text for found in completer.get_completions(Document(text), CompleteEvent())]

        assert completed("/ima") == ["/image", "/images"]
        assert completed(f"/image {spaced.parent}/") == ["a b.png", "c.jpg"]
        assert completed(f"/load {spaced.parent}/h") == ["osts"]
        assert completed(f"{spaced.parent}/a") == [" b.png"]
        assert completed("What") == []


def test_the_line_below_the_prompt() -> None:
    from concurrent.futures import Future

    from bluelm_cli.chat_status import status_line

    loaded: Future[Any] = Future()
    engine = SimpleNamespace(
        loading=(loaded,),
        config=SimpleNamespace(name="demo"),
        language=SimpleNamespace(context=SimpleNamespace(length=12, limit=2048)),
    )
    waits, done, fails = (
        SimpleNamespace(path=Path(f"{name}.png"), features=Future(), progress=SimpleNamespace(done=d, total=t))
        for name, d, t in (("a\x1b", 3, 12), ("b", 0, 0), ("c", 0, 0))
    )
    talking: Any = SimpleNamespace(engine=engine, named=[waits, done, fails])
    assert status_line(talking) == "demo · loading the model · a�.png ▰▰▱▱▱▱▱▱ 3/12 · b.png … · c.png …"
    loaded.set_result(None)
    done.features.set_result(None)
    fails.features.set_exception(UsageError("a", "b", "c"))
    assert status_line(talking).endswith("b.png ✓ · c.png ✗ · 12 of 2,048 tokens")
