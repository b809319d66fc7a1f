"""All that is written beside artifacts, or into one while it grows: whole or not at all, wherever a process dies."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.device.contract.feature_files import read_features, write_features
from stages.device.contract.feature_shards import ShardIndex, ShardWriter, read_shard_index, shard_file, whole_shards
from stages.device.imaging.spec import TilingSpec
from stages.device.runtime.feature_disk import FeatureDisk
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.tuned import TunedProfile, TunedSettings, read_profile
from stages.device.speech.outlets import WavFile
from stages.device.speech.recording import Recording
from stages.evaluate.predictions import Prediction, PredictionWriter, read_predictions
from stages.workshop.corpus.copied import CopiedPictures
from stages.workshop.corpus.picture import PictureBytes, PictureFile
from stages.workshop.corpus.revision.answer_cache import AnswerCache
from stages.workshop.corpus.revision.answers import Reply
from stages.workshop.corpus.tile_shards import ShardCutting, ShardTask, cut_shard, done_shard
from tests.faults.exhaustive import Work, survive_everything

ROOT = Path(__file__).resolve().parents[2]
# Who may rename or sync by hand: the file that does it for all, folders, and what is only ever appended to.
OWN_WAYS = {
    "artifacts/atomic_file.py",
    "artifacts/exchange.py",
    "device/runtime/session_cache.py",
    "measure/random_models.py",
    "workshop/corpus/revision/answer_cache.py",
    "workshop/quant/tensor_files.py",
}
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def swept(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """The work after a fault, in an artifact: what a kill left goes (`create` does it where files are listed)."""

    def again(place: Path) -> None:
        write(place)
        for left in (*place.rglob(".*.partial"), *place.rglob(".entries.lock")):  # a lock's file, which nobody holds
            left.unlink()

    return again


def of_file(prepare: Any, write: Callable[[Path], None], look: Callable[[Path], Any], partly: Any = None) -> Work:
    return Work(prepare or (lambda place: None), write, look, partly, again=swept(write))


def test_nobody_else_renames_or_syncs_by_hand() -> None:
    pattern = re.compile(r"os\.(replace|rename|fsync)\b|\.rename\(|\b(part|partial|draft|tmp)\w*\.replace\(|mkstemp")
    found = {
        path.relative_to(ROOT / "stages").as_posix()
        for path in (ROOT / "stages").rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert found <= OWN_WAYS, "use stages/artifacts/atomic_file.py"


def test_features_of_a_picture(tmp_path: Path) -> None:
    def look(place: Path) -> Any:
        return (
            read_features(place, "0" * 64).tolist() if (place / f"features/{'0' * 64}.safetensors").exists() else None
        )

    survive_everything(of_file(None, lambda place: write_features(place, "0" * 64, VALUES), look), tmp_path)


def test_shards_of_features(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        for number in range(whole_shards(place), 2):
            with ShardWriter(place, number, 3, 4) as writer:
                writer.add(VALUES[None] + number)
                writer.close(ShardIndex(drawn=number + 1, pictures=()))

    def look(place: Path) -> Any:
        count = whole_shards(place)
        return [(read_shard_index(place, at).drawn, shard_file(place, at).read_bytes()) for at in range(count)]

    survive_everything(of_file(None, write, look, lambda found: len(found) == 1 and len(found[0][1]) == 280), tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "tar"])
def test_shards_of_tiles(tmp_path: Path, form: Any) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    spec = TilingSpec(tile_size=32, tokens_per_tile=4)

    def cutting(place: Path) -> ShardCutting:
        return ShardCutting(place, spec, (0, 0, 0), "bicubic", form, skip_broken=False)

    def write(place: Path) -> None:
        if done_shard(0, cutting(place)) is None:
            outcome = cut_shard(ShardTask(0, (PictureFile.at(tmp_path / "red.png"),), cutting(place)))
            assert outcome.problems == ()

    def look(place: Path) -> Any:
        made = cutting(place)
        shard = done_shard(0, made)
        return None if shard is None else (shard, made.file(0).read_bytes())

    survive_everything(of_file(None, write, look), tmp_path / "work")


def test_a_tuned_profile(tmp_path: Path) -> None:
    def write(threads: int) -> Callable[[Path], None]:
        profile = TunedProfile(
            model="m", model_digest=None, machine="x", made_on={}, settings=TunedSettings(threads=threads)
        )
        return lambda place: profile.write(place / "profiles" / "p.json")

    def look(place: Path) -> Any:
        return read_profile(place / "profiles" / "p.json").settings.threads

    survive_everything(of_file(write(1), write(2), look), tmp_path)


def test_features_in_the_users_cache(tmp_path: Path) -> None:
    def look(place: Path) -> Any:
        found = FeatureDisk(place / "cache", "m").get("a" * 64, (3, 4))
        return None if found is None else found.tolist()

    def write(place: Path) -> None:
        FeatureDisk(place / "cache", "m").put("a" * 64, VALUES)

    survive_everything(of_file(None, write, look), tmp_path)


def prediction(name: str) -> Prediction:
    return Prediction(
        id=name, task="t", metric="m", question="q", answers=("a",), reply="r" * 99, score=1.0, group=name,
        bundles={}, image_tokens=1, prompt_tokens=2, generated_tokens=3,
    )  # fmt: skip


def test_replies_that_were_given_are_never_lost(tmp_path: Path) -> None:
    """Opening the file of a stopped run again once emptied it before it wrote what it held."""

    def prepare(place: Path) -> None:
        writer = PredictionWriter(place / "predictions.jsonl")
        for name in "ab":
            writer.add(prediction(name))
        writer.close("ab")
        with (place / "predictions.jsonl").open("a") as stream:
            stream.write('{"id": "c", "ta')  # a kill cut it short

    def write(place: Path) -> None:
        writer = PredictionWriter(place / "predictions.jsonl")
        for name in set("dcba") - set(writer.done):
            writer.add(prediction(name))
        writer.close("abcd")

    def look(place: Path) -> list[str]:
        return [one.id for one in read_predictions(place / "predictions.jsonl", torn=True)]

    survive_everything(of_file(prepare, write, look, lambda found: {"a", "b"} <= set(found)), tmp_path)


def test_pictures_that_are_copied(tmp_path: Path) -> None:
    pictures = [PictureBytes(tmp_path, f"{name}.png", name.encode() * 50) for name in "ab"]

    def write(place: Path) -> None:
        copies = CopiedPictures(place)
        for picture in pictures:
            copies.refer(picture)

    def look(place: Path) -> Any:
        return sorted(path.read_bytes() for path in place.rglob("*.png"))

    survive_everything(
        of_file(None, write, look, lambda found: found and set(found) < {b"a" * 50, b"b" * 50}), tmp_path
    )


def test_a_copy_that_a_power_cut_emptied_is_made_again(tmp_path: Path) -> None:
    picture = PictureBytes(tmp_path, "a.png", b"a" * 50)
    path = tmp_path / CopiedPictures(tmp_path).refer(picture)
    path.write_bytes(b"")
    CopiedPictures(tmp_path).refer(picture)
    assert path.read_bytes() == b"a" * 50


def test_answers_that_were_paid_for(tmp_path: Path) -> None:
    def put(*keys: str) -> Callable[[Path], None]:
        def write(place: Path) -> None:
            with AnswerCache(place / "answers.jsonl") as cache:
                for key in keys:
                    if key not in cache:
                        asyncio.run(cache.put(key, Reply(f"answer {key}", "stop", 1, 2)))

        return write

    def look(place: Path) -> Any:
        with AnswerCache(place / "answers.jsonl") as cache:
            return [found.text for key in ("aa", "bb", "cc") if (found := cache.get(key)) is not None]

    two = ["answer aa", "answer bb"]
    survive_everything(of_file(put("aa"), put("bb", "cc"), look, lambda found: found == two), tmp_path)


def test_a_recording(tmp_path: Path) -> None:
    def say(value: float) -> Callable[[Path], None]:
        def write(place: Path) -> None:
            outlet = WavFile(place / "said.wav", 16000)
            outlet.play(Recording(np.full(4000, value, np.float32), 16000), lambda: False)
            outlet.close(whole=True)

        return write

    survive_everything(
        of_file(say(0.1), say(0.2), lambda place: (place / "said.wav").read_bytes()),
        tmp_path,
    )


@dataclass
class FakeOptions:
    """Takes what the cache sets of onnxruntime's options."""

    optimized_model_filepath: str = ""
    graph_optimization_level: Any = None

    def add_session_config_entry(self, name: str, value: str) -> None:
        """One setting."""


def test_an_entry_of_the_session_cache(tmp_path: Path) -> None:
    graph = tmp_path / "decoder.onnx"
    graph.write_bytes(b"graph")
    graph.with_name("decoder.onnx.data").write_bytes(b"weights")

    def opener(path: Path, change: Callable[[Any], None]) -> Any:
        options = FakeOptions()
        change(options)
        if options.optimized_model_filepath:
            written = Path(options.optimized_model_filepath)
            written.write_bytes(b"MatMul+1|0;64;0")
            (written.parent / "graph.data").write_bytes(b"packed weights" * 9)
        return path.read_bytes()

    def write(place: Path) -> None:
        SessionCache(place / "cache", smallest=0).open(graph, opener)

    def look(place: Path) -> Any:
        entries = [path for path in (place / "cache").glob("[0-9a-f]*") if path.is_dir()]
        stamps = [json.loads((entry / "entry.json").read_bytes()) for entry in entries]
        return [(entry / "graph.data").read_bytes() for entry in entries if stamps]

    survive_everything(of_file(None, write, look), tmp_path / "work")
