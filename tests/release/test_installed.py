"""From the built wheel in an environment of its own, away from the checkout: everything that the README promises works.

No connection to any other machine is made meanwhile: an audit hook of Python's would end the process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
LONELY = """
import os, sys
def hook(event, arguments):
    sent = event in ("socket.connect", "socket.sendto") and arguments[0].family.name != "AF_UNIX"
    if sent or event == "socket.getaddrinfo":
        os.write(2, f"a connection: {event} {arguments[1:]}\\n".encode())
        os._exit(99)
sys.addaudithook(hook)
"""
IMPORT_EVERYTHING = """
import importlib, pathlib, sys, stages, bluelm_cli
count = 0
for package in (stages, bluelm_cli):
    root = pathlib.Path(package.__file__).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        if "recipes" in parts or path.name == "__main__.py":
            continue
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        count += 1
print(count, stages.__file__)
"""


@pytest.fixture(scope="module")
def installed(release: tuple[Path, Path], environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a command of the installed wheel in an empty folder: `installed(*words)`."""
    environment("base", [release[1]])
    base = environment("base", ["--no-deps", "--force-reinstall", release[1]])
    work = tmp_path_factory.mktemp("away")
    (work / "hook").mkdir()
    (work / "hook" / "sitecustomize.py").write_text(LONELY, encoding="utf-8")
    Image.new("RGB", (320, 240), "green").save(work / "picture.png")

    def run(*words: object, check: bool = True) -> Any:
        more = {"PYTHONPATH": str(work / "hook"), "BLUELM_CACHE": str(work / "cache"), "HOME": str(work)}
        return base.run(*words, cwd=work, check=check, **more)

    run.folder, run.environment = work, base.folder  # type: ignore[attr-defined]
    return run


def test_the_hook_ends_who_connects(installed: Any) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"
    assert installed("python", "-c", code, check=False).returncode == 99


def test_every_module_imports_with_the_base_dependencies_alone(installed: Any, project_root: Path) -> None:
    count, place = installed("python", "-c", IMPORT_EVERYTHING).stdout.split(maxsplit=1)
    own = [path for name in ("stages", "bluelm_cli") for path in (project_root / name).rglob("*.py")]
    assert int(count) == len([path for path in own if path.name != "__main__.py"])
    assert str(installed.environment) in place and str(project_root) not in place


def test_the_shipped_model_answers_and_is_measured(installed: Any) -> None:
    asked = installed("bluelm", "chat", "--image", "picture.png", "--prompt", "What colour is the shape?", "--json")
    assert json.loads(asked.stdout)["answer"]
    limits = ["--runs", "1", "--generate", "4", "--prompt-tokens", "128"]
    rows = json.loads(installed("bluelm", "bench", "--chunk", "128", *limits, "--json").stdout)["rows"]
    assert {row["test"] for row in rows} == {"load", "encode", "prefill", "decode"}


def test_alpha_changes_how_pictures_are_cut(installed: Any) -> None:
    told = installed("bluelm", "tile", "picture.png", "--alpha", "0.2", "--json")
    (picture,) = json.loads(told.stdout)["images"]
    assert picture["rules"]["relaxed"]["tiles"] >= 1


def test_recipes_fonts_prompts_and_devices_are_found(installed: Any) -> None:
    code = "from stages.artifacts.recipes import recipes_folder as f; print(f())"
    recipes = Path(installed("python", "-c", code).stdout.strip())
    assert recipes.is_relative_to(installed.environment)
    folders = ("base", "accuracy", "devices", "paper", "peers", "prompts", "tiny", "demo")
    for name in (*folders, "demo.sh", "THIRD_PARTY.md"):
        assert (recipes / name).exists(), name
    estimate = ["bench", "estimate", "--picture", "768x1536", "--policy", "paper", "--device", "dimensity-9300"]
    assert installed("bluelm", *estimate).stdout


def test_completions_complete(installed: Any) -> None:
    script = installed.environment / "share" / "bash-completion" / "completions" / "bluelm"
    line = f'. "{script}"; COMP_WORDS=(bluelm quan); COMP_CWORD=1; _bluelm bluelm; echo "${{COMPREPLY[@]}}"'
    code = "import subprocess, sys; sys.exit(subprocess.call(['bash', '-c', sys.argv[1]]))"
    assert installed("python", "-c", code, line).stdout.split() == ["quantize"]


def test_a_model_is_made_quantized_exported_and_asked(installed: Any) -> None:
    drawn = ["--recipe", "tiny/data.yaml", "--set", "train=32", "--set", "heldout=8"]
    installed("bluelm", "data", "render", *drawn, "--out", "corpus")
    steps = ["--set", "steps=2", "--set", "warmup_steps=1", "--set", "global_batch=4"]
    installed(
        *("bluelm", "pretrain", "--preset", "tiny", "--recipe", "tiny/pretrain.yaml", "--data", "corpus"),
        *(*steps, "--out", "stage1"),
    )
    installed("bluelm", "quantize", "stage1", "--data", "corpus", "--out", "int4")
    installed("bluelm", "export", "int4", "--out", "onnx")
    asked = installed("bluelm", "chat", "onnx", "--image", "picture.png", "--prompt", "What colour?", "--json")
    assert "answer" in json.loads(asked.stdout)
    again = installed("bluelm", "export", "int4", "--out", "onnx")
    assert "up to date" in again.stdout + again.stderr
