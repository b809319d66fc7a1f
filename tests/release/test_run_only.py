"""Running an exported model needs the few packages of recipes/run-only.txt, on Python 3.11 to 3.13.

Of the other Pythons' interpreters, those on PATH as python3.12 or named in BLUELM_PYTHONS (separated by :) are used.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

VERSIONS = ((3, 11), (3, 12), (3, 13))
SERVE = """
import json, sys, threading, urllib.request
from pathlib import Path
from stages import chat_serve
from stages.artifacts.events import Notice
from stages.device.runtime.shipped import model_or_shipped
events = chat_serve.run(chat_serve.ServeConfig(), model_or_shipped(None), "0")
url = next(event.text for event in events if isinstance(event, Notice) and "/v1" in event.text).split()[-3]
def ask():
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
    request = urllib.request.Request(url + "/chat/completions", body, {"Content-Type": "application/json"})
    print(json.load(urllib.request.urlopen(request))["object"])
    import os, signal; os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask).start()
list(events)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_source_is_python_of_each_version(project_root: Path, version: tuple[int, int]) -> None:
    for package in ("bluelm_cli", "stages"):
        for path in (project_root / package).rglob("*.py"):
            ast.parse(path.read_text(encoding="utf-8"), feature_version=version)


def interpreter(version: str) -> str:
    """A Python of this version; skips where there is none."""
    named = os.environ.get("BLUELM_PYTHONS", "").split(os.pathsep)
    for program in (sys.executable, shutil.which(f"python{version}"), *named):
        if program:
            said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            if said.startswith(f"Python {version}."):
                return program
    pytest.skip(f"there is no Python {version}: BLUELM_PYTHONS names interpreters")


@pytest.mark.slow
@pytest.mark.parametrize("version", [f"{major}.{minor}" for major, minor in VERSIONS])
def test_an_exported_model_runs_on_what_the_list_names(
    version: str, release: tuple[Path, Path], environment: Any, project_root: Path, tmp_path: Path
) -> None:
    run_only = environment(
        f"run-only-{version}", ["-r", project_root / "recipes" / "run-only.txt"], interpreter(version)
    )
    # The second call takes the wheel alone, as the list's own words say.
    environment(f"run-only-{version}", ["--no-deps", "--force-reinstall", release[1]])
    Image.new("RGB", (160, 120), "red").save(tmp_path / "a.png")

    def told(*words: object) -> Any:
        return json.loads(run_only.run("bluelm", *words, "--json", cwd=tmp_path).stdout)

    assert told("chat", "--image", "a.png", "--prompt", "What colour is the shape?")["answer"]
    rows = told("bench", "--chunk", "128", "--runs", "1", "--generate", "4", "--prompt-tokens", "128")["rows"]
    assert {row["test"] for row in rows} == {"load", "encode", "prefill", "decode"}
    assert told("encode", "a.png", "--out", "features")["kind"] == "features"
    assert told("tile", "a.png", "--compare")["images"]
    assert "chat.completion" in run_only.run("python", "-c", SERVE, cwd=tmp_path).stdout
    absent = run_only.run("python", "-c", "import torch", cwd=tmp_path, check=False)
    assert "No module named 'torch'" in absent.stderr
