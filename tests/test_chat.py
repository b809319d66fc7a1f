"""`chat`: one question, a conversation, stored features, and the pictures people really have."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import chat, encode, encode_corpus
from stages.artifacts.errors import ArtifactError, ImageError, ProblemsError, UsageError
from stages.artifacts.events import Finished, Notice, result_of
from stages.artifacts.folder import open_artifact
from stages.chat import ChatConfig, ChatResult
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.generator import Token
from stages.device.runtime.session_cache import SessionCache
from stages.encode import EncodeConfig

QUICK: dict[str, Any] = {"threads": 1, "max_tokens": 8, "cache": False}


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    def make(seed: int = 0, width: int = 300, height: int = 200) -> Path:
        path = tmp_path / f"{seed}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


def asked(model: Path, prompt: str, images: list[Path], features: Path | None = None, **config: Any) -> ChatResult:
    events = list(chat.run(ChatConfig(**{**QUICK, **config}), model, prompt, images, features))
    last = events[-1]
    assert isinstance(last, Finished)
    assert "".join(event.text for event in events if isinstance(event, Token)) == last.result.turn.answer.text
    return last.result


def test_a_question_about_two_pictures(tiny_onnx: Path, picture: Any) -> None:
    result = asked(tiny_onnx, "What?", [picture(0), picture(1, 100, 100)])
    found = result.as_dict()
    assert found["image_tokens"] == (7 + 1) * 16
    assert [image["tiles"] for image in found["images"]] == [7, 1]
    assert 0 < found["generated_tokens"] <= 8
    assert found["first_token_s"] >= found["prefill_s"] > 0 and found["load_s"] > 0
    assert found["answer"] == result.turn.answer.text


def test_chunk_batch_and_pipeline_change_no_answer(tiny_onnx: Path, picture: Any) -> None:
    path = picture()
    first = asked(tiny_onnx, "What?", [path])
    for config in ({"chunk": 7}, {"chunk": 1000}, {"pipeline": False}, {"keep_vision": True}):
        other = asked(tiny_onnx, "What?", [path], **config)
        assert other.turn.answer.text == first.turn.answer.text
        assert other.turn.answer.prompt_tokens == first.turn.answer.prompt_tokens


def test_sampling_is_repeated_by_its_seed(tiny_onnx: Path) -> None:
    def text(seed: int) -> str:
        return asked(tiny_onnx, "Hello", [], temperature=3.0, seed=seed, max_tokens=20).turn.answer.text

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_stored_features_give_the_same_answer_without_the_vision_graphs(
    tiny_onnx: Path, picture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture()
    fresh = asked(tiny_onnx, "What?", [path])
    result_of(encode.run(EncodeConfig(threads=1), tiny_onnx, [path], tmp_path / "f"))
    monkeypatch.setattr(ImageEncoder, "_ready", lambda *_: pytest.fail("the vision graphs were used"))
    stored = asked(tiny_onnx, "What?", [path], tmp_path / "f")
    assert stored.turn.answer.text == fresh.turn.answer.text
    assert [image["reused"] for image in stored.as_dict()["images"]] == [True]


def test_a_picture_without_stored_features_is_encoded(tiny_onnx: Path, picture: Any, tmp_path: Path) -> None:
    result_of(encode.run(EncodeConfig(threads=1), tiny_onnx, [picture(0)], tmp_path / "f"))
    result = asked(tiny_onnx, "What?", [picture(0), picture(1)], tmp_path / "f")
    assert [image["reused"] for image in result.as_dict()["images"]] == [True, False]


def test_an_answer_that_is_cut_says_so(tiny_onnx: Path) -> None:
    events = list(chat.run(ChatConfig(**{**QUICK, "max_tokens": 1}), tiny_onnx, "Hello"))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == ["The answer was cut after 1 tokens (--max-tokens)."]


def test_vit_features_are_the_wrong_kind(tiny_onnx: Path, picture: Any, tmp_path: Path) -> None:
    path = picture()
    result_of(encode_corpus.run(encode_corpus.EncodeCorpusConfig(threads=1), tiny_onnx, [path], tmp_path / "f"))
    with pytest.raises(ArtifactError, match="kind vit-features") as caught:
        asked(tiny_onnx, "What?", [path], tmp_path / "f")
    assert "bluelm encode" in caught.value.fix


def test_all_bad_pictures_and_all_bad_values_are_told_together(tiny_onnx: Path, picture: Any, tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture().read_bytes()[:9000])
    with pytest.raises(ProblemsError) as caught:
        asked(tiny_onnx, "What?", [cut, picture(1), tmp_path / "none.png"])
    assert [type(problem) for problem in caught.value.problems] == [ImageError, ImageError]
    with pytest.raises(ProblemsError) as refused:
        asked(tiny_onnx, "What?", [], chunk=0, temperature=-1, top_p=2)
    assert [type(problem) for problem in refused.value.problems] == [UsageError] * 3


# A finder that refuses what a phone does not carry, before anything of ours is imported.
BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnx_ir", "scipy", "pandas"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Refuse())
from bluelm_cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["chat", "encode"])
def test_it_runs_without_torch_transformers_and_onnx(
    tiny_onnx: Path, picture: Any, tmp_path: Path, command: str
) -> None:
    words = {
        "chat": ["chat", tiny_onnx, "--image", picture(), "--prompt", "What?", "--max-tokens", 4, "--json"],
        "encode": ["encode", tiny_onnx, picture(), "--out", tmp_path / "f", "--json"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"tiles": 7' in done.stdout
    refused = subprocess.run(
        [sys.executable, "-c", BLOCKED.replace("from bluelm_cli", "import torch\nfrom bluelm_cli")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "torch is blocked" in refused.stderr


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("photos", 30, 1), ("img_edge", 20, 5), ("ocr", 20, 0), pytest.param("screens", 30, 0, marks=pytest.mark.slow)],
)
def test_every_real_picture_is_encoded_or_refused_by_name(
    tiny_onnx: Path, data_dir: Path, name: str, good: int, bad: int
) -> None:
    paths = sorted(path for path in (data_dir / name).rglob("*") if path.is_file())
    paths = [path for path in paths if path.suffix.lower() not in (".txt", ".md", "")]
    answered, refused = 0, 0
    with chat.conversation(ChatConfig(threads=1, max_tokens=1, keep_vision=True), tiny_onnx) as talk:
        waiting = [(path, talk.engine.album.add(path)) for path in paths]
        for path, future in waiting:
            error = future.exception()
            if error is None:
                shown = future.result()
                assert shown.features.shape == (shown.tiles * 16, talk.engine.config.decoder.hidden_size)
                answered += 1
            else:
                assert isinstance(error, ImageError), (path, error)
                assert str(path) in error.what and error.why and error.fix
                refused += 1
    assert answered >= good and refused >= bad


def test_the_manifest_is_what_opens_the_door(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no artifact\.json") as caught:
        asked(tmp_path, "What?", [])
    assert "bluelm export" in caught.value.fix
    with pytest.raises(ArtifactError, match="does not exist"):
        open_artifact(tmp_path / "none", "onnx")


def test_the_cache_changes_no_answer_and_no_cache_keeps_none(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("stages.device.runtime.session_cache.SessionCache", functools.partial(SessionCache, smallest=1))
    answers = []
    for kept in (False, True, True):
        events = list(chat.run(ChatConfig(max_tokens=3, cache=kept, threads=1), tiny_onnx, "What?"))
        assert (tmp_path / "cache").exists() is kept
        answers.append(result_of(events).turn.answer.text)
    assert len(set(answers)) == 1


def test_what_the_cache_says_is_told(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.chat.Engine.notices", ("decoder.onnx was prepared",))
    events = list(chat.run(ChatConfig(max_tokens=3, threads=1), tiny_onnx, "What?"))
    assert Notice("decoder.onnx was prepared") in events
