"""`encode --before-connector`: any data becomes shards, once a picture, whatever kills it on the way."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stages import encode_corpus
from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError, BluelmError
from stages.artifacts.events import Notice, result_of
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import validate
from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.contract.feature_shards import (
    TENSOR,
    EncoderRecord,
    ShardPicture,
    read_feature_corpus,
    read_shard_index,
    shard_file,
)
from stages.device.imaging.crop import crop_tiles, padding_colour
from stages.device.imaging.loading import load_image
from stages.device.imaging.tiling import plan_tiling
from stages.device.runtime.sessions import Graph
from stages.encode_corpus import EncodeCorpusConfig, EncodedCorpus

Bluelm = Callable[..., Any]
SIZES = ((100, 90), (300, 200), (330, 320), (120, 300), (64, 64), (500, 110))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, the second one there twice."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "again.png").write_bytes((folder / "1.png").read_bytes())
    return folder


def config(**changes: Any) -> EncodeCorpusConfig:
    return validate(EncodeCorpusConfig, {"threads": 1, **changes}, "test")


def encoded(model: Path, inputs: list[Path], out: Path, **changes: Any) -> EncodedCorpus:
    return result_of(encode_corpus.run(config(**changes), model, inputs, out))


def pictures_of(folder: Path) -> dict[str, tuple[ShardPicture, np.ndarray]]:
    """Everything that is stored, by digest."""
    found = {}
    for number in range(read_feature_corpus(folder).shards):
        values = load_file(shard_file(folder, number))[TENSOR]
        for picture in read_shard_index(folder, number).pictures:
            assert picture.sha256 not in found
            found[picture.sha256] = (picture, values[picture.first_tile : picture.first_tile + picture.tiles])
    return found


def test_features_are_those_of_the_graphs(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    result = encoded(tiny_onnx, [photos], tmp_path / "f")
    device = read_device_config(tiny_onnx)
    index = read_feature_corpus(tmp_path / "f")
    assert index.encoder == EncoderRecord(kind="onnx", digest=open_artifact(tiny_onnx, "onnx").digest)
    assert (index.tiling, index.patches, index.width) == (device.tiling, 49, device.vision.vision_width)
    stored = pictures_of(tmp_path / "f")
    assert set(stored) == {digest_file(path) for path in photos.iterdir()}
    assert (result.pictures, result.tiles) == (6, sum(picture.tiles for picture, _ in stored.values()))
    assert result.totals is not None and result.totals.duplicates == 1
    graphs = [Graph(tiny_onnx / file, threads=1) for file in (names.PATCH_EMBED_FILE, names.VISION_FILE)]
    for picture, values in stored.values():
        image = load_image(photos / picture.name)
        tiling = plan_tiling(picture.size, device.tiling)
        tiles = crop_tiles(image, tiling, padding_colour(device.vision.image_mean))
        embeds = graphs[0].run({names.PIXEL_VALUES: tiles}, [names.PATCH_EMBEDS])[0]
        expected = graphs[1].run({names.PATCH_EMBEDS: embeds}, ["vit_features"])[0]
        assert values.dtype == np.float16 and picture.grid == tiling.grid
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3)


def test_the_plan_counts_tiles_and_bytes(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    result = encoded(tiny_onnx, [photos], tmp_path / "f")
    (photos_once := tmp_path / "once").mkdir()
    for number in range(len(SIZES)):
        (photos_once / f"{number}.png").write_bytes((photos / f"{number}.png").read_bytes())
    planned = encode_corpus.plan(config(), tiny_onnx, [photos_once])
    assert (planned.pictures, planned.tiles, planned.bytes) == (result.pictures, result.tiles, result.bytes)
    stored = sum(values.nbytes for _, values in pictures_of(tmp_path / "f").values())
    assert result.bytes == stored
    one = encode_corpus.plan(config(tiling={"max_cols": 1, "max_rows": 1}), tiny_onnx, [photos_once])
    assert one.tiles == 6 and one.tiling.max_tiles is None


def rows(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.png"))]


def write_llava(out: Path, found: list[tuple[str, bytes]]) -> Path:
    content = []
    for name, data in found:
        (out / name).write_bytes(data)
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
        content += [{"id": f"{name} {number}", "image": name, "conversations": turns} for number in range(2)]
    content.append({"id": "bad", "image": "../outside.png", "conversations": content[0]["conversations"]})
    (out / "data.json").write_text(json.dumps(content))
    return out / "data.json"


def write_parquet(out: Path, found: list[tuple[str, bytes]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    cells = [{"bytes": data, "path": name} for name, data in found]
    pq.write_table(pa.table({"image": cells, "messages": [turns] * len(found)}), out / "data.parquet")
    return out / "data.parquet"


def write_tar(out: Path, found: list[tuple[str, bytes]]) -> Path:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    with tarfile.open(out / "data.tar", "w") as tar:
        for name, data in found:
            for member, content in ((name, data), (f"{name[:-4]}.json", json.dumps({"conversations": turns}).encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out / "data.tar"


@pytest.mark.parametrize("write", [write_llava, write_parquet, write_tar])
def test_any_data_gives_the_same_features(
    write: Callable[[Path, list[tuple[str, bytes]]], Path], tiny_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    data = write(tmp_path / "data", rows(photos))
    encoded(tiny_onnx, [photos], tmp_path / "folder")
    result = encoded(tiny_onnx, [data], tmp_path / "f")
    folder, found = pictures_of(tmp_path / "folder"), pictures_of(tmp_path / "f")
    assert found.keys() == folder.keys()
    for digest, (picture, values) in found.items():
        np.testing.assert_array_equal(values, folder[digest][1])
        assert picture.grid == folder[digest][0].grid
    assert result.bad_rows == (write is write_llava)


KILLED = """
import os, random, signal, sys
from pathlib import Path
from stages import encode_corpus
from stages.artifacts.events import Progress, result_of
from stages.artifacts.recipes import validate
model, photos, out, dice = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), random.Random(int(sys.argv[4]))
config = validate(encode_corpus.EncodeCorpusConfig, {"threads": 1, "shard_mb": 1}, "killed")
encode_corpus._MEGABYTE = 100_000
died, places = [], [dice.random() < 0.5 for _ in range(int(sys.argv[5]))]
for number in range(int(sys.argv[5]) + 1):
    left, replace = dice.randint(1, 3), os.replace
    pid = os.fork()
    if not pid:
        if number < int(sys.argv[5]):
            if places[number]:
                def torn(*args):
                    global left
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    replace(*args)
                os.replace = torn
            else:
                for event in encode_corpus.run(config, model, [photos], out):
                    if isinstance(event, Progress) and event.unit == "tiles":
                        left -= 1
                        if not left:
                            os.kill(os.getpid(), signal.SIGKILL)
        result_of(encode_corpus.run(config, model, [photos], out))
        os._exit(0)
    died.append(os.WIFSIGNALED(os.waitpid(pid, 0)[1]))
print(sum(died), died[-1])
"""


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_gives_the_same_bytes(
    kills: int, tiny_onnx: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_corpus, "_MEGABYTE", 100_000)
    out = tmp_path / "killed"
    words = [sys.executable, "-c", KILLED, str(tiny_onnx), str(photos), str(out), "7", str(kills)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    killed, last = done.stdout.split()
    assert (int(killed) >= 2, last) == (True, "False"), done.stdout
    encoded(tiny_onnx, [photos], tmp_path / "whole", shard_mb=1)
    assert open_artifact(out, "vit-features").digest == open_artifact(tmp_path / "whole", "vit-features").digest
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".killed.partial")]
    assert left == []


def test_broken_pixels_cost_their_picture_and_missing_pictures_the_run(
    tiny_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_llava(data, rows(photos))
    (data / "2.png").write_bytes((photos / "2.png").read_bytes()[:9000])
    told = list(encode_corpus.run(config(), tiny_onnx, [data / "data.json"], tmp_path / "f"))
    assert any(isinstance(event, Notice) and event.text.startswith("2.png is left out") for event in told)
    index = read_feature_corpus(tmp_path / "f")
    assert [broken.name for broken in index.broken] == ["2.png"] and index.pictures == 5
    (data / "3.png").unlink()
    (data / "4.png").write_bytes(b"")
    with pytest.raises(BluelmError) as caught:
        encoded(tiny_onnx, [data / "data.json"], tmp_path / "g")
    problems = [problem.what for problem in caught.value.problems]
    assert [name in what for name, what in zip(("3.png", "4.png"), problems, strict=True)] == [True, True]
    assert not (tmp_path / "g").exists()


def test_up_to_date_and_different(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    first = encoded(tiny_onnx, [photos], tmp_path / "f")
    again = list(encode_corpus.run(config(pipeline=False), tiny_onnx, [photos], tmp_path / "f"))
    assert any(isinstance(event, Notice) and "up to date" in event.text for event in again)
    assert again[-1].result.as_dict()["tiles"] == first.tiles  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="max_cols is 4, not 2"):
        encoded(tiny_onnx, [photos], tmp_path / "f", tiling={"max_cols": 2})
    with pytest.raises(ArtifactError, match="other inputs"):
        encoded(tiny_onnx, [photos / "1.png"], tmp_path / "f")


def test_the_command(bluelm: Bluelm, tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    words = ["encode", tiny_onnx, photos, "--before-connector", "--max-grid", "2x1", "--threads", 1]
    planned = bluelm(*words, "--dry-run", "--json").json()
    assert (planned["dry_run"], planned["kind"], planned["pictures"]) == (True, "vit-features", 7)
    assert planned["bytes"] == planned["tiles"] * planned["tile_bytes"]
    done = bluelm(*words, "--out", tmp_path / "f", "--json")
    assert done.code == 0, done.err
    told = done.json()
    assert (told["pictures"], told["duplicates"], told["broken"], told["shards"]) == (6, 1, [], 1)
    assert told["tiling"]["max_cols"] == 2 and told["tiles_per_s"] > 0
    assert json.loads((tmp_path / "f/artifact.json").read_text())["metrics"]["tiles"] == told["tiles"]
    table = bluelm(*words, "--out", tmp_path / "f")
    assert "up to date" in table.err and f"{told['tiles']:,} (" in table.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--before-connector"], "--out is missing"),
        (["--before-connector", "--max-grid", "big", "--dry-run"], "--max-grid 'big' is not a grid"),
        (["--max-grid", "1x1", "--dry-run"], "--max-grid given without --before-connector"),
        (["--before-connector", "--dtype", "bfloat16", "--dry-run"], "is an exported model: dtype is bfloat16"),
        (["--before-connector", "--set", "tiling.max_col=1", "--dry-run"], "Did you mean"),
    ],
)
def test_wrong_ways_to_ask(words: list[str], message: str, bluelm: Bluelm, tiny_onnx: Path, photos: Path) -> None:
    done = bluelm("encode", tiny_onnx, photos, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and "Why:" in done.err and "Fix:" in done.err


def test_inputs_that_cannot_be_used_are_told_together(
    bluelm: Bluelm, tiny_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    words = ["--before-connector", "--dry-run"]
    done = bluelm("encode", tiny_onnx, photos, tmp_path / "none.png", tmp_path / "empty", *words)
    assert done.code == 2
    assert "2 problems" in done.err and "none.png" in done.err and "holds no pictures" in done.err


def test_an_exported_model_needs_neither_torch_nor_transformers(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom bluelm_cli.app import main\n"
        f"try:\n    main(['encode', {str(tiny_onnx)!r}, {str(photos)!r}, '--before-connector', '--threads', '1', "
        f"'--out', {str(tmp_path / 'f')!r}])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('loaded', *(name for name in ('torch', 'transformers', 'datasets') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"
    assert read_feature_corpus(tmp_path / "f").pictures == 6
