"""`encode`: what is written, that order and overlap change nothing, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stages import encode
from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError, ImageError, ModelError, ProblemsError, UsageError
from stages.artifacts.events import Finished, Notice, result_of
from stages.artifacts.folder import ArtifactSpec, create, open_artifact
from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.contract.feature_files import read_features, read_index, write_features
from stages.device.imaging.crop import crop_tiles, padding_colour
from stages.device.imaging.loading import load_image
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.pictures import StoredFeatures
from stages.device.runtime.sessions import Graph
from stages.device.runtime.shipped import split_model
from stages.encode import EncodeConfig, EncodeResult

Bluelm = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of 1, 7 and 10 tiles, the second one there twice."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, width, height in (("a.png", 100, 90), ("b.png", 300, 200), ("d.png", 330, 320)):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    return folder


def encoded(model: Path, inputs: list[Path], out: Path, force: bool = False, **config: Any) -> EncodeResult:
    return result_of(encode.run(EncodeConfig(threads=1, **config), model, inputs, out, force))


def expected(model: Path, path: Path, output: str) -> np.ndarray:
    """One picture through the graphs themselves, by hand."""
    device = read_device_config(model)
    vision = device.vision
    image = load_image(path)
    from stages.device.imaging.geometry import Size
    from stages.device.imaging.tiling import plan_tiling

    tiles = crop_tiles(image, plan_tiling(Size(*image.size), device.tiling), padding_colour(vision.image_mean))
    first, second = (Graph(model / file, threads=1) for file in (names.PATCH_EMBED_FILE, names.VISION_FILE))
    rows = []
    for start in range(0, len(tiles), 4):
        embeds = first.run({names.PIXEL_VALUES: tiles[start : start + 4]}, [names.PATCH_EMBEDS])[0]
        rows.append(second.run({names.PATCH_EMBEDS: embeds}, [output])[0])
    return np.concatenate(rows)


def test_features_are_those_of_the_graphs(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    result = encoded(tiny_onnx, [photos], tmp_path / "f")
    index = read_index(tmp_path / "f")
    assert index.model == open_artifact(tiny_onnx, "onnx").digest
    assert [entry.names for entry in index.images] == [("a.png",), ("b.png", "c.png"), ("d.png",)]
    for entry in index.images:
        path = photos / entry.names[0]
        assert entry.sha256 == digest_file(path)
        values = read_features(tmp_path / "f", entry.sha256)
        assert values.shape == (entry.tokens, read_device_config(tiny_onnx).decoder.hidden_size)
        reference = expected(tiny_onnx, path, "image_features").reshape(values.shape)
        np.testing.assert_array_equal(values, reference)
    files = [tmp_path / "f" / entry.file for entry in index.images]
    arrays = [load_file(file)["image_features"].nbytes for file in files]
    assert [image.bytes for image in result.images] == arrays


@pytest.mark.parametrize("batch", [1, 4])
def test_pipelined_equals_sequential_to_the_byte(tiny_onnx: Path, photos: Path, tmp_path: Path, batch: int) -> None:
    digests = set()
    for name, pipeline in (("on", True), ("off", False)):
        result = encoded(tiny_onnx, [photos], tmp_path / name, batch=batch, pipeline=pipeline)
        assert [image.picture.name for image in result.images] == ["a.png", "b.png", "d.png"]
        digests.add(open_artifact(tmp_path / name, "features").digest)
    assert len(digests) == 1


def test_batches_end_with_their_picture(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    result = encoded(tiny_onnx, [photos], tmp_path / "f", batch=4)
    assert [span.tiles for span in result.timeline if span.part == "blocks"] == [1, 4, 3, 4, 4, 2]
    assert [image.batches for image in result.images] == [(0,), (1, 2), (3, 4, 5)]
    assert result.seconds == pytest.approx(sum(image.seconds or 0 for image in result.images))


def test_a_picture_has_the_same_features_alone_and_among_others(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    encoded(tiny_onnx, [photos], tmp_path / "all")
    alone = encoded(tiny_onnx, [photos / "d.png"], tmp_path / "one").images[0]
    files = [tmp_path / folder / "features" / f"{alone.sha256}.safetensors" for folder in ("all", "one")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_up_to_date_different_and_forced(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    encoded(tiny_onnx, [photos / "a.png"], out)
    before = (out / "run.json").read_text()
    again = list(encode.run(EncodeConfig(threads=2, pipeline=False), tiny_onnx, [photos / "a.png"], out))
    assert any(isinstance(event, Notice) and "up to date" in event.text for event in again)
    assert isinstance(again[-1], Finished) and again[-1].result.seconds is None
    assert (out / "run.json").read_text() == before
    with pytest.raises(ArtifactError, match="batch is 1, not 2"):
        encoded(tiny_onnx, [photos / "a.png"], out, batch=2)
    with pytest.raises(ArtifactError, match="other inputs"):
        encoded(tiny_onnx, [photos / "b.png"], out)
    assert encoded(tiny_onnx, [photos / "b.png"], out, force=True).tiles == 7


def test_a_stopped_run_goes_on_where_it_was(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    events = encode.run(EncodeConfig(threads=1), tiny_onnx, [photos], out)
    for event in events:
        if not isinstance(event, Finished | Notice) and event.label == "encoding":
            break  # one picture is written
    events.close()
    assert not out.exists()
    events = list(encode.run(EncodeConfig(threads=1), tiny_onnx, [photos], out))
    assert any(isinstance(event, Notice) and "1 of 3 pictures" in event.text for event in events)
    whole = tmp_path / "whole"
    encoded(tiny_onnx, [photos], whole)
    assert open_artifact(out, "features").digest == open_artifact(whole, "features").digest


def test_all_bad_pictures_are_told_before_anything_is_encoded(
    tiny_onnx: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes((photos / "b.png").read_bytes()[:9000])
    (tmp_path / "empty.png").write_bytes(b"")
    monkeypatch.setattr(ImageEncoder, "load", lambda self: pytest.fail("the graphs were loaded"))
    inputs = [cut, photos / "a.png", tmp_path / "empty.png", tmp_path / "none.png"]
    with pytest.raises(ProblemsError) as caught:
        encoded(tiny_onnx, inputs, tmp_path / "f")
    told = [problem.what for problem in caught.value.problems]
    assert all(isinstance(problem, ImageError) for problem in caught.value.problems)
    assert [name in what for name, what in zip(("cut.png", "empty.png", "none.png"), told, strict=True)] == [True] * 3
    assert not (tmp_path / "f").exists()


def test_a_wrong_kind_names_the_command(photos: Path, tmp_path: Path) -> None:
    with create(tmp_path / "c", ArtifactSpec("checkpoint", "finetune", {})) as draft:
        (draft.path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="kind checkpoint") as caught:
        encoded(tmp_path / "c", [photos], tmp_path / "f")
    assert "bluelm export" in caught.value.fix


def test_stored_features_refuse_another_model_and_damage(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    digest = open_artifact(tiny_onnx, "onnx").digest
    sha256 = str(encoded(tiny_onnx, [photos / "a.png"], out).images[0].sha256)
    assert StoredFeatures(out, digest).get(sha256) is not None
    assert StoredFeatures(out, digest).get("0" * 64) is None
    with pytest.raises(ArtifactError, match="encoded by another model"):
        StoredFeatures(out, "1" * 64)
    write_features(out, sha256, np.zeros((2, 2)))
    assert StoredFeatures(out, digest).get(sha256).shape == (2, 2)  # type: ignore[union-attr]
    (out / "features" / f"{sha256}.safetensors").write_bytes(b"damage")
    with pytest.raises(ArtifactError, match=f"{sha256}.safetensors cannot be read"):
        StoredFeatures(out, digest).get(sha256)
    (out / "features.json").write_text('{"kind": "features"}')
    with pytest.raises(ArtifactError, match=r"features\.json: model: Field required"):
        StoredFeatures(out, digest)


def test_the_first_path_is_a_model_where_it_says_so(tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    picture = photos / "a.png"
    assert split_model([tiny_onnx, picture]) == (tiny_onnx, [picture])
    assert split_model([photos, picture]) == (None, [photos, picture])
    with create(tmp_path / "corpus", ArtifactSpec("corpus", "data render", {})):
        pass
    assert split_model([tmp_path / "corpus"]) == (None, [tmp_path / "corpus"])
    with pytest.raises(UsageError, match="No picture is named"):
        split_model([tiny_onnx])


def test_the_command(bluelm: Bluelm, tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    planned = bluelm("encode", tiny_onnx, photos, "--out", out, "--dry-run", "--json")
    assert planned.code == 0 and not out.exists()
    assert planned.json()["dry_run"] is True and planned.json()["tiles"] == 25
    done = bluelm("encode", tiny_onnx, photos, "--out", out, "--batch", 2, "--no-pipeline", "--threads", 1, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert (result["kind"], result["tiles"], result["batch"]) == ("features", 18, 2)
    assert {"path", "sha256", "grid", "tiles", "tokens", "bytes", "seconds"} <= result["images"][0].keys()
    assert result["hidden_s"] == 0 and len(result["timeline"]) == 20
    assert json.loads((out / "run.json").read_text())["encode_s"] == result["seconds"]
    table = bluelm("encode", tiny_onnx, photos, "--out", out, "--batch", 2)
    assert table.code == 0
    assert "up to date" in table.err and "3 pictures, 18 tiles" in table.out


def test_the_commands_errors(
    bluelm: Bluelm, tiny_onnx: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = photos / "a.png"
    cases: list[tuple[list[Any], str]] = [
        ([tiny_onnx, picture], "--out is missing"),
        ([tiny_onnx, "--out", tmp_path / "f"], "No picture is named"),
        ([tiny_onnx, picture, "--out", tmp_path / "f", "--batch", 0], "batch"),
        ([tiny_onnx, tmp_path / "none.png", "--out", tmp_path / "f"], "none.png does not exist"),
        ([tiny_onnx, tmp_path, "--out", tmp_path / "f"], "holds no pictures"),
    ]
    for words, message in cases:
        done = bluelm("encode", *words)
        assert (done.code, done.out) == (2, ""), done.err
        assert message in done.err and "Why:" in done.err and "Fix:" in done.err
    monkeypatch.setattr("stages.device.runtime.shipped.recipes_folder", lambda: tmp_path)
    refused = bluelm("encode", picture, "--out", tmp_path / "f")
    assert refused.code == 2 and "carries no demo model" in refused.err


def test_a_missing_graph(bluelm: Bluelm, tiny_onnx: Path, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_onnx.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "vision.onnx").unlink()
    with pytest.raises((ArtifactError, ModelError), match=r"vision\.onnx"):
        encoded(model, [photos], tmp_path / "f")
    assert bluelm("encode", model, photos, "--out", tmp_path / "f").code == 2
