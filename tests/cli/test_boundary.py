"""The error boundary: what the user can fix is said in three beats with code 2, never as a fault of bluelm."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def assert_three_beats(done: Any, *words: str) -> None:
    assert done.code == 2
    assert done.out == ""
    for word in ("Error:", "Why:", "Fix:", *words):
        assert word in done.err
    assert "bug in bluelm" not in done.err


def test_a_name_too_long(bluelm: Run, tmp_path: Path) -> None:
    assert_three_beats(bluelm("tile", tmp_path / ("x" * 300), "--out", tmp_path / "out"), "File name too long")


def test_a_name_that_is_not_utf_8(bluelm: Run, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / os.fsdecode(b"caf\xe9.png")
    with picture.open("wb") as stream:
        Image.new("RGB", (64, 48)).save(stream, "PNG")
    assert_three_beats(bluelm("tile", picture, "--out", tmp_path / "out"), "caf\\xe9.png")
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]


def test_an_out_below_a_file(bluelm: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bluelm(
        *("data", "render", "--set", "train=1", "--set", "heldout=1", "--task", "colour"),
        *("--out", tmp_path / "file" / "x"),
    )
    assert_three_beats(done, str(tmp_path / "file"))


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_the_current_folder_as_out(bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = bluelm("data", "render", "--set", "train=1", "--set", "heldout=1", "--task", "colour", "--out", name)
    assert_three_beats(done, f"{name} is the current folder or one above it")
    assert list(tmp_path.iterdir()) == []


def test_info_of_the_current_folder(bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_three_beats(bluelm("info", "."), "holds no artifact.json")
    assert_three_beats(bluelm("encode", ".", "x.png", "--out", tmp_path / "out"))


@pytest.mark.parametrize(
    ("number", "filename", "code"),
    [
        (errno.EACCES, "runs/a", 2),
        (errno.ENOSPC, b"runs/a", 2),
        (errno.EIO, "runs/a", 1),
        (errno.EBADF, "runs/a", 1),
        (errno.EACCES, None, 1),
    ],
)
def test_only_a_named_path_is_the_users(
    bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, filename: str | bytes | None, code: int
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), filename)

    monkeypatch.setattr("stages.artifacts.lineage.read_any", refuse)
    done = bluelm("info", tmp_path)
    assert done.code == code
    assert ("runs/a cannot be used: " + os.strerror(number) in done.err) == (code == 2)
    assert ("bug in bluelm" in done.err) == (code == 1)
    if code == 2:
        with pytest.raises(OSError, match=os.strerror(number)):
            bluelm("info", tmp_path, "--debug")


@pytest.mark.parametrize("name", ["quantize", "pretrain", "finetune"])
def test_a_file_here_does_not_shadow_a_default_recipe(
    bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.yaml").write_text("shadow: 1\n")
    words = {
        "quantize": ("none", "--dry-run"),
        "pretrain": ("--data", "none", "--preset", "tiny", "--dry-run"),
        "finetune": ("none", "--data", "none", "--dry-run"),
    }[name]
    missing = "none cannot be read" if name == "pretrain" else "none does not exist"
    assert_three_beats(bluelm(name, *words), missing)
    assert_three_beats(bluelm(name, *words, "--recipe", f"{name}.yaml"), f"{name}.yaml: unknown key 'shadow'")
    # A narrow terminal breaks the line between the words.
    shown = " ".join(bluelm(name, "--help").out.replace("│", " ").split())
    assert f"[default: ({name}.yaml)]" in shown


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOMEM, "x"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes")],
)
def test_memory_that_is_used_up(
    bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refuse(path: Path) -> None:
        raise error

    monkeypatch.setattr("stages.artifacts.lineage.read_any", refuse)
    assert_three_beats(bluelm("info", tmp_path), "The memory is used up")
