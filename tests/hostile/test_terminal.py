"""What files say never steers a terminal: names with escape sequences, right-to-left marks, newlines, wrong UTF-8."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bluelm_cli import console
from bluelm_cli.chat_text import escaped
from stages.artifacts.errors import UsageError
from stages.artifacts.events import Finished, Notice, Progress

Run = Callable[..., Any]
# Clears the screen, sets the title, is a CSI of one byte, turns the order of letters around.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b1m\u202egnp.b"
HARMFUL = ("\x1b", "\x07", "\x9b", "\u202e")


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: request.param, raising=False)
    return bool(request.param)


def test_notices_tables_progress_and_bugs(terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def events() -> Any:
        yield Progress(EVIL, 1, 2, "files")
        yield Notice(f"{EVIL} is left out", "warning")
        yield Finished(1)

    assert console.drive(events()) == 1
    console.note(EVIL)
    console.show_bug(ValueError(EVIL))
    console.show_error(UsageError(EVIL, EVIL, EVIL))
    console.emit_table("t", ["name", "n"], [[EVIL, 1]])
    console.emit_json({"name": EVIL, EVIL: 1})
    out, err = capsys.readouterr()
    ours = ("\x1b[33m", "\x1b[0m", "\x1b[1;31m")
    for code in ours:
        err = err.replace(code, "")
    for harmful in HARMFUL:
        assert harmful not in out
    # A bar moves the cursor itself, with sequences that nobody else chose.
    for harmful in ("\x1b[2J", "\x1b]0;", "\x07", "\x9b", "\u202e"):
        assert harmful not in err


def test_json_is_the_same_value() -> None:
    value = {EVIL: [EVIL, "\U000e0001\u200d", "ç你🙂", "\\u001b", '"', "\x7f\x80\u2028"]}
    text = escaped(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert not any(harmful in text for harmful in (*HARMFUL, "\x7f", "\x80", "\u2028"))
    assert "ç你🙂" in text


NAMES = [
    b"with space.png",
    b"new\nline.png",
    b"\x1b[2Jx.png",
    "\u202egnp.exe.png".encode(),
    b"-rf.png",
    b"caf\xe9.png",
    b"$(id).png",
    b"a'b\"c.png",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name))
def test_pictures_of_any_name(bluelm: Run, tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with (folder / os.fsdecode(name)).open("wb") as stream:
        Image.new("RGB", (64, 48)).save(stream, "PNG")
    utf8 = b"\xe9" not in name
    for words in (("tile", folder, "--json"), ("tile", folder), ("tile", folder, "--out", tmp_path / "out")):
        done = bluelm(*words)
        assert done.code in ((0,) if utf8 else (0, 2)), done.err
        assert not any(harmful in done.out + done.err for harmful in HARMFUL)
        assert "bug in bluelm" not in done.err
        if "--json" in words and done.code == 0:
            assert done.json()
