"""The README's commands: each exists with the flags that it is shown with, and runs, or is listed with why it is not.

Those that run do so in one folder, in the order of the text, some with less work than shown.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FEW = ("--set", "steps=2", "--set", "warmup_steps=1", "--set", "global_batch=4")
SHORT = ("--runs", "1", "--generate", "2", "--prompt-tokens", "64")
# The beginning of a command, and what is added so that it takes seconds. The longest beginning holds.
RUN: dict[str, tuple[str, ...]] = {
    "bluelm chat --image picture.png": (),
    "bluelm bench --chunk 128": SHORT,
    "bluelm data check llava.json": (),
    "bluelm tile screen.png": (),
    "bluelm tile sizes.csv": (),
    "bluelm pretrain --preset tiny": FEW,
    "bluelm finetune build/stage1 --recipe tiny/finetune.yaml": FEW,
    "bluelm split build/stage2": (),
    "bluelm quantize build/stage2": (),
    "bluelm export build/int4 --out build/onnx": (),
    "bluelm encode build/onnx photos/": (),
    "bluelm bench build/onnx --chunk 32": SHORT,
    "bluelm bench schema": (),
    "bluelm bench eval build/onnx": (),
    "bluelm bench agreement build/stage2": (),
    "bluelm bench estimate --picture": (),
    "bluelm info build/stage2 build/int4": (),
    "bluelm doctor": (),
}
NOT_RUN = {
    "make ": "the front doors; `make test` is this",
    "pip ": "tests/release/test_installed.py installs",
    "torchrun ": "several nodes",
    "accelerate ": "several nodes",
    "recipes/": "see the tests of each recipe",
    "bluelm data render": "minutes of drawing; tests/test_data_render.py",
    "bluelm data pages": "PDFs of other people",
    "bluelm data mix": "corpora of other people; tests/data_mix/",
    "bluelm data revise": "an endpoint",
    "bluelm adopt": "a downloaded model; tests/test_adopt.py",
    "bluelm pretrain-tower": "hours of training",
    "bluelm pretrain --vision": "downloaded models",
    "bluelm pretrain --from CHECKPOINT": "a model of one's own",
    "bluelm finetune build/stage1 --data": "a model of one's own",
    "bluelm encode CHECKPOINT": "a model of one's own; tests/test_encode_corpus.py",
    "bluelm data check llava_v1_5": "a downloaded set",
    "bluelm chat build/onnx --image": "a terminal; tests/cli/test_conversation.py",
    "bluelm chat build/onnx --serve": "it serves until it is stopped; tests/test_chat_serve.py",
    "bluelm chat --image photo.png --listen": "the extra speech, a microphone; tests/test_chat_speech.py",
    "bluelm bench fig": "minutes; tests/test_bench_figures.py",
    "bluelm bench tune": "minutes; tests/test_bench_figures.py",
    "bluelm bench ops": "the 3B shape",
    "bluelm bench compare": "benches of one's own; tests/test_bench_figures.py",
    "bluelm bench paper": "a bench of one's own; tests/test_bench_figures.py",
    "bluelm bench table": "two evaluations; tests/pipeline/",
    "bluelm bench accuracy": "a downloaded suite; tests/test_bench_accuracy.py",
    "bluelm export build/int4 --target npu": "Qualcomm's compiler; tests/export_npu/",
}


def load_commands(root: Path) -> list[str]:
    """The README's commands."""
    spec = importlib.util.spec_from_file_location("readme_lines", HERE / "readme_lines.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.commands(root / "README.md")
    assert len(found) > 40
    return found


def beginning(command: str) -> str | None:
    """The longest of the tables' beginnings that a command has."""
    return max((text for text in (*RUN, *NOT_RUN) if command.startswith(text)), key=len, default=None)


def test_every_flag_that_the_readme_shows_exists(project_root: Path) -> None:
    import typer

    from bluelm_cli.app import app

    root: Any = typer.main.get_command(app)
    for text in load_commands(project_root):
        words = shlex.split(text)
        if "bluelm" not in words[0] and "bluelm_cli" not in words:
            continue
        words = words[1 + (words.index("bluelm_cli") if "bluelm_cli" in words else 0) :]
        command = root
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if (default := getattr(command, "default_command", None)) is not None:
            command = command.commands[default]
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0] in known, f"{word} in: {text}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """What the README takes for granted: pictures, questions about them, sizes, a corpus."""
    from PIL import Image

    made = tmp_path_factory.mktemp("reader")
    (made / "photos").mkdir()
    Image.new("RGB", (108, 240), "white").save(made / "screen.png")
    for number, colour in enumerate(("red", "green", "blue", "white")):
        picture = made / "photos" / f"{number}.png"
        Image.new("RGB", (120, 90), colour).save(picture)
    shutil.copy(made / "photos" / "0.png", made / "picture.png")
    rows = [
        {
            "id": str(number),
            "image": f"{number}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat colour is it?"},
                {"from": "gpt", "value": colour},
            ],
        }
        for number, colour in enumerate(("red", "green", "blue", "white"))
    ]
    (made / "llava.json").write_text(json.dumps(rows), encoding="utf-8")
    with (made / "sizes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("width", "height", "count"), (1080, 2400, 3), (640, 480, 2)])
    drawn = ["--recipe", "tiny/data.yaml", "--set", "train=32", "--set", "heldout=8", "--out", "build/corpus"]
    assert typed(["data", "render", *drawn], made, project_root).returncode == 0
    return made


def typed(words: list[str], folder: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Runs bluelm as a reader would."""
    surroundings = {**os.environ, "PYTHONPATH": str(root), "BLUELM_CACHE": str(folder / "cache")}
    line = [sys.executable, "-m", "bluelm_cli", *words]
    return subprocess.run(line, cwd=folder, env=surroundings, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.slow
def test_every_command_is_in_one_of_the_tables(project_root: Path) -> None:
    found = load_commands(project_root)
    assert [text for text in found if beginning(text) is None] == [], "say in RUN or NOT_RUN what becomes of them"
    used = {beginning(text) for text in found}
    assert [text for text in RUN if text not in used] == [], "the README no longer shows these"


@pytest.mark.slow
def test_the_readmes_commands_run(folder: Path, project_root: Path) -> None:
    ran = 0
    for text in load_commands(project_root):
        start = beginning(text)
        if start not in RUN:
            continue
        words = shlex.split(text)[1:]
        if "--out" in words:  # some outputs are shown twice, made from other data
            words.append("--force")
        done = typed([*words, *RUN[start]], folder, project_root)
        allowed = (0, 2) if words == ["doctor"] else (0,)  # a slow machine is no fault of the text
        assert done.returncode in allowed, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= len(RUN)
