"""Fixtures of the whole suite: the real data, and the command line run in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Tests run beside others on few cores; torch's and onnxruntime's pools would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that runs the suite in the background has Ctrl-C ignored, and every process a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test tests a time, nor does hypothesis: on a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real pictures and data; skips where they are missing, fails there when BLUELM_REQUIRE_DATA is set."""
    folder = Path(os.environ.get("BLUELM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"no data at {folder}; set BLUELM_DATA to a folder that has it"
        if os.environ.get("BLUELM_REQUIRE_DATA"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def _own_cache(_caches: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test leaves in the user's cache, such as features of a picture, is not there for the next."""
    monkeypatch.setenv("BLUELM_CACHE", str(_caches / str(id(request.node))))


@dataclass(frozen=True)
class Completed:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as one JSON object."""
        return json.loads(self.out)


@pytest.fixture
def bluelm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Completed]:
    """Runs a bluelm command line in this process: `bluelm("tile", path, "--json")`."""
    from bluelm_cli.app import main

    def run(*words: object) -> Completed:
        capfd.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        out, err = capfd.readouterr()
        return Completed(code, out, err)

    return run


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported tiny model that can be asked: one layer each, random INT8 and INT4 weights, INT8 KV cache."""
    from stages.artifacts.folder import ArtifactSpec, create
    from stages.device.imaging.presets import ImagingPreset
    from stages.device.imaging.spec import TilingSpec
    from stages.workshop.graph.random_model import write_random_model
    from stages.workshop.model.presets import preset_config
    from stages.workshop.model.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_tokenizer(["What colour is the shape?", "red green blue circle square"] * 3, vocab_size=300)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = preset_config(
        "tiny", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, text_layers=1, vision_layers=1
    )
    # An odd grid of 7×7 patches, as so400m/14-384 has one of 27×27.
    imaging = ImagingPreset(TilingSpec(tile_size=112, tokens_per_tile=16), patch_size=16)
    config.vision_config.image_size, config.vision_config.patch_size = 112, 16
    with create(folder / "onnx", ArtifactSpec(kind="onnx", stage="export", config={})) as draft:
        copied = {"tokenizer": folder / "tokenizer", "imaging": imaging}
        for _ in write_random_model("tiny", draft.path, config=config, **copied):
            pass
    return folder / "onnx"
