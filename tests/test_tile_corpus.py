"""Tiles in shards: the same as in one file, whoever cuts them, from whatever input, however often that is killed."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stages import tile, tile_corpus
from stages.artifacts.errors import BluelmError, DataError, UsageError
from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.folder import open_artifact
from stages.device.imaging.tiles_file import TilesIndex, read_tiles_index, shards_of
from stages.tile import TileConfig
from stages.tile_corpus import TileCorpusConfig, TileCorpusResult
from stages.workshop.corpus import tile_engines
from stages.workshop.corpus.picture_listing import wants_shards

CONFIG = TileCorpusConfig(preset="tiny", pictures_per_shard=4)


def encoded(number: int, kind: str = "JPEG") -> bytes:
    """A picture of its own content and size."""
    random_values = np.random.default_rng(number)
    width, height = random_values.integers(20, 400, 2).tolist()
    coarse = random_values.integers(0, 256, (5, 6, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(18):
        (folder / f"{number:03d}.jpg").write_bytes(encoded(number))
    return folder


def run(*inputs: Path, out: Path, config: TileCorpusConfig = CONFIG, **options: Any) -> TileCorpusResult:
    return result_of(tile_corpus.run(config, list(inputs), out=out, **options))


def content(folder: Path) -> dict[str, bytes]:
    """All files but the record of the run."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def all_tiles(folder: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Tiles and entries of all shards, one after the other."""
    tiles, entries, first = [], [], 0
    for file, index in shards_of(folder):
        tiles.append(load_file(file)["tiles"])
        for image in index.images:
            entries.append({**image.model_dump(), "first_tile": first + image.first_tile})
        first += len(tiles[-1])
    return np.concatenate(tiles), entries


def test_shards_hold_what_one_file_would(photos: Path, tmp_path: Path) -> None:
    result_of(tile.run(TileConfig(preset="tiny"), [photos], out=tmp_path / "one"))
    result = run(photos, out=tmp_path / "shards", processes=1)
    tiles, entries = all_tiles(tmp_path / "shards")
    expected, expected_entries = all_tiles(tmp_path / "one")
    np.testing.assert_array_equal(tiles, expected)
    assert entries == expected_entries
    assert (result.pictures, result.shards, result.tiles) == (18, 5, len(tiles))
    manifest = open_artifact(tmp_path / "shards", "tiles").manifest
    assert manifest is not None
    assert manifest.metrics == {"pictures": 18, "tiles": len(tiles), "tokens": result.tokens, "broken": 0, "shards": 5}
    assert [shard.file for shard in read_tiles_index(tmp_path / "shards").shards][-1] == "tiles-00004.safetensors"


def test_more_processes_change_nothing_and_a_killed_one_is_replaced(photos: Path, tmp_path: Path) -> None:
    run(photos, out=tmp_path / "one", processes=1)
    killed = 0
    for event in tile_corpus.run(CONFIG, [photos], out=tmp_path / "two", processes=2):
        if isinstance(event, Progress) and event.done and not killed:
            worker = next(child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline()))
            worker.kill()
            killed += 1
    assert killed
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_shard_that_always_ends_its_process_is_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_engines, "cut_shard", end_process)
    with pytest.raises(DataError, match=r"from 000.jpg to 003.jpg ended 3 times") as caught:
        run(photos / "000.jpg", *(photos / f"00{n}.jpg" for n in (1, 2, 3)), out=tmp_path / "tiles", processes=2)
    assert "data check" in caught.value.fix


def end_process(task: object) -> None:
    os._exit(9)


COMMAND = [sys.executable, "-m", "bluelm_cli"]


def kill_and_go_on(photos: Path, folder: Path, kills: int, engine: tuple[str, ...] = ()) -> int:
    """Runs the command and kills it at random moments, again and again; returns how often it went on from shards."""
    words = ["tile", str(photos), "--preset", "tiny", "--set", "pictures_per_shard=1", "--threads", "2", *engine]
    moments = random.Random(kills)
    resumed = 0
    for _ in range(kills):
        before = len(list(folder.parent.glob(f".{folder.name}.partial/tiles-*.json")))
        process = subprocess.Popen([*COMMAND, *words, "--out", str(folder)], stderr=subprocess.DEVNULL)
        # Not before it has cut something new, or it would never be done; then at any moment, but before all is cut.
        enough = before + moments.randint(1, 20)
        while process.poll() is None and not folder.exists():
            if len(list(folder.parent.glob(f".{folder.name}.partial/tiles-*.json"))) >= enough:
                time.sleep(moments.uniform(0, 0.004))
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed += before > 0
        if folder.exists():
            break
    done = subprocess.run([*COMMAND, *words, "--out", str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return resumed


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_gives_the_same_bytes(tmp_path: Path, kills: int) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(60 * kills):
        (photos / f"{number:05d}.jpg").write_bytes(encoded(number % 40) + str(number).encode())
    config = CONFIG.model_copy(update={"pictures_per_shard": 1})
    run(photos, out=tmp_path / "whole", config=config, processes=1)
    resumed = kill_and_go_on(photos, tmp_path / "killed", kills)
    assert resumed >= kills // 2
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]


def test_a_stopped_run_goes_on_with_what_lacks(photos: Path, tmp_path: Path) -> None:
    run(photos, out=tmp_path / "whole", processes=1)
    events = tile_corpus.run(CONFIG, [photos], out=tmp_path / "tiles", processes=1)
    for event in events:
        if isinstance(event, Progress) and event.done >= 8:
            break
    events.close()  # type: ignore[attr-defined]
    partial = tmp_path / ".tiles.partial"
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("tiles-*.safetensors")}
    assert len(kept) >= 2
    (partial / "tiles-00000.json").unlink()  # a shard without its index was never finished
    (partial / ".left.partial").write_bytes(b"half a shard")
    told = list(tile_corpus.run(CONFIG, [photos], out=tmp_path / "tiles", processes=1))
    assert any(isinstance(event, Notice) and "going on: 1 of 5" in event.text for event in told)
    assert content(tmp_path / "tiles") == content(tmp_path / "whole")
    assert (tmp_path / "tiles" / "tiles-00001.safetensors").stat().st_mtime_ns == kept["tiles-00001.safetensors"]


def test_again_is_up_to_date_and_changed_pictures_are_other_inputs(photos: Path, tmp_path: Path) -> None:
    first = run(photos, out=tmp_path / "tiles", processes=1)
    again = list(tile_corpus.run(CONFIG, [photos], out=tmp_path / "tiles"))
    assert any(isinstance(event, Notice) and "up to date" in event.text for event in again)
    assert result_of(iter(again)).as_dict() == {**first.as_dict(), "tiles_per_second": None}
    changed = photos / "003.jpg"
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(BluelmError, match="other inputs"):
        run(photos, out=tmp_path / "tiles")


def test_broken_pictures_are_told_together_or_left_out(photos: Path, tmp_path: Path) -> None:
    whole = (photos / "005.jpg").read_bytes()
    (photos / "005.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "011.jpg").write_bytes(b"")
    with pytest.raises(BluelmError) as caught:
        run(photos, out=tmp_path / "tiles", processes=2)
    whats = sorted(problem.what for problem in caught.value.problems)
    assert [Path(what.split(" is ")[0]).name for what in whats] == ["005.jpg", "011.jpg"]
    assert not (tmp_path / "tiles").exists()
    result = run(photos, out=tmp_path / "tiles", config=CONFIG.model_copy(update={"skip_broken": True}), processes=1)
    assert (result.pictures, result.broken) == (16, 2)
    left_out = [image.path for _, index in shards_of(tmp_path / "tiles") for image in index.broken]
    assert left_out == ["005.jpg", "011.jpg"]
    assert len(all_tiles(tmp_path / "tiles")[1]) == 16


def tar_of(folder: Path, target: Path, names: list[str]) -> Path:
    with tarfile.open(target, "w") as tar:
        for name in names:
            tar.add(folder / name, name)
            text = tarfile.TarInfo(name.replace(".jpg", ".txt"))
            tar.addfile(text)
    return target


def test_tars_and_tables_give_the_tiles_of_their_pictures(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(path.name for path in photos.iterdir())
    shards = tmp_path / "shards"
    shards.mkdir()
    tar_of(photos, shards / "0.tar", names[:7])
    tar_of(photos, shards / "1.tar", names[7:])
    cells = [{"bytes": (photos / name).read_bytes(), "path": name} for name in names]
    pq.write_table(pa.table({"image": cells, "text": names}), tmp_path / "data.parquet", row_group_size=5)
    run(photos, out=tmp_path / "plain", processes=1)
    expected, entries = all_tiles(tmp_path / "plain")
    for given in (shards, tmp_path / "data.parquet"):
        assert wants_shards([given], 256)
        run(given, out=tmp_path / f"from-{given.name}", processes=2)
        tiles, found = all_tiles(tmp_path / f"from-{given.name}")
        np.testing.assert_array_equal(tiles, expected)
        assert [entry["sha256"] for entry in found] == [entry["sha256"] for entry in entries]


def test_tars_out_hold_arrays_and_entries(photos: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"shard_format": "tar"})
    for name in ("tars", "again"):
        run(photos, out=tmp_path / name, config=config, processes=1)
    assert content(tmp_path / "tars") == content(tmp_path / "again")
    run(photos, out=tmp_path / "plain", processes=1)
    expected, _ = all_tiles(tmp_path / "plain")
    assert_samples_are(tmp_path / "tars", expected)


def assert_samples_are(folder: Path, expected: np.ndarray) -> None:
    """The samples of all tars are these tiles, none missing and none twice."""
    keys, tiles = [], []
    for file in sorted(folder.glob("tiles-*.tar")):
        with tarfile.open(file) as tar:
            members = tar.getmembers()
            for array, entry in zip(members[::2], members[1::2], strict=True):
                assert array.name.removesuffix(".npy") == entry.name.removesuffix(".json")
                keys.append(array.name)
                tiles.append(np.load(io.BytesIO(read(tar, array)), allow_pickle=False))
                assert json.loads(read(tar, entry))["tile_count"] == len(tiles[-1])
    assert len(set(keys)) == len(keys)
    np.testing.assert_array_equal(np.concatenate(tiles), expected)


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()


def test_training_reads_shards_as_it_would_cut(photos: Path, tmp_path: Path) -> None:
    import torch

    from stages.workshop.corpus.picture import PictureFile
    from stages.workshop.model.image_processing import BlueLMVImageProcessor
    from stages.workshop.training.pictures import CutTiles, StoredTiles, Tiled

    run(photos, out=tmp_path / "tiles", processes=1)
    spec = CONFIG.spec
    cutter = CutTiles(BlueLMVImageProcessor(spec), spec, 10**8)
    stored = StoredTiles(tmp_path / "tiles", spec, CutTiles(BlueLMVImageProcessor(spec), spec, 0))
    for path in sorted(photos.iterdir()):
        tiled = Tiled(PictureFile.at(path))
        assert stored.holds(tiled)
        assert torch.equal(stored.tiles_of(tiled), cutter.tiles_of(tiled))
    assert stored.cut_again == 0
    run(photos, out=tmp_path / "tars", config=CONFIG.model_copy(update={"shard_format": "tar"}), processes=1)
    with pytest.raises(BluelmError, match="holds its tiles in tars"):
        StoredTiles(tmp_path / "tars", spec, cutter)


def test_small_inputs_stay_in_one_file(photos: Path, tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    assert not wants_shards([photos], 256)
    assert wants_shards([photos], 17)
    assert not wants_shards([tmp_path / "absent.png"], 256)
    assert bluelm("tile", photos, "--preset", "tiny", "--out", tmp_path / "one").code == 0
    assert (tmp_path / "one" / "tiles.safetensors").is_file()
    words = ("tile", photos, "--preset", "tiny", "--set", "pictures_per_shard=5", "--threads", 1)
    planned = bluelm(*words, "--out", tmp_path / "many", "--dry-run", "--json")
    assert (planned.json()["shards"], planned.json()["pictures"], planned.json()["tiles"]) == (4, 18, None)
    made = bluelm(*words, "--out", tmp_path / "many", "--json")
    assert (made.json()["shards"], made.json()["tiles"]) == (4, len(all_tiles(tmp_path / "one")[0]))
    assert TilesIndex.model_validate_json((tmp_path / "many" / "tiles-00003.json").read_bytes()).images


def test_engines_are_checked(photos: Path, tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    wrong = bluelm("tile", photos, "--engine", "spark")
    assert wrong.code == 2
    assert "--engine spark does not exist" in wrong.err
    assert "--out is missing" in wrong.err


def test_ray_that_is_not_installed_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed") as caught:
        run(photos, out=tmp_path / "tiles", engine="ray")
    assert caught.value.fix == "Install it: pip install 'bluelm[cluster]'"


@pytest.mark.slow
def test_a_ray_cluster_loses_nothing_with_a_killed_worker(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'bluelm[cluster]'")
    names = sorted(path.name for path in photos.iterdir())
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(6):
        tar_of(photos, shards / f"{number}.tar", names)
    config = CONFIG.model_copy(update={"shard_format": "tar", "pictures_per_shard": 2})
    run(shards, out=tmp_path / "local", config=config, processes=1)
    killed: list[int] = []
    for event in tile_corpus.run(config, [shards], out=tmp_path / "ray", engine="ray", processes=2):
        if isinstance(event, Progress) and event.done >= 20 and len(killed) < 2:
            workers = [
                child
                for child in psutil.Process().children(recursive=True)
                if child.name().startswith("ray::") and "cut_shard" in child.name() and child.pid not in killed
            ]
            for worker in workers[:1]:
                worker.kill()
                killed.append(worker.pid)
    assert killed
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    run(shards, out=tmp_path / "plain", config=CONFIG, processes=1)
    assert_samples_are(tmp_path / "ray", all_tiles(tmp_path / "plain")[0])
