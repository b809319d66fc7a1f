"""The verb: decisions from headers, an artifact that holds the very tiles, previews, and errors reported together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stages import tile
from stages.artifacts.errors import ArtifactError, BluelmError, ImageError, UsageError
from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.folder import ArtifactSpec, create, open_artifact
from stages.artifacts.recipes import load_config
from stages.device.imaging.crop import Colour, crop_tiles
from stages.device.imaging.geometry import Size
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.preview import is_preview
from stages.device.imaging.rules import RULES
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiles_file import read_tiles_index
from stages.device.imaging.tiling import plan_tiling
from stages.tile import TileConfig, TileResult

SIZES = {"a.png": Size(32, 15), "sub/b.png": Size(21, 56), "sub/c.png": Size(13, 13)}


def noise(size: Size, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size.height, size.width, 3), np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for seed, (name, size) in enumerate(SIZES.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise(size, seed).save(folder / name)
    return folder


def run(config: TileConfig, *inputs: Path, **options: Any) -> TileResult:
    return result_of(tile.run(config, inputs, **options))


def broken(folder: Path) -> Path:
    """A picture whose header is whole and whose pixels are cut."""
    path = folder / "cut.png"
    noise(Size(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:50_000])
    return path


TINY = TileConfig(preset="tiny")
EVERY_RULE = tuple(RULES)
TILE = imaging_preset("tiny").tiling.tile_size


def test_the_artifact_holds_exactly_the_tiles(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    result = run(TINY, photos, out=out, threads=2)
    artifact = open_artifact(out, "tiles")
    index = read_tiles_index(out)
    tiles = load_file(out / "tiles.safetensors")["tiles"]
    assert tiles.dtype == np.uint8
    assert tiles.shape == (result.tiles, 3, TILE, TILE)
    assert tiles.nbytes == result.bytes
    assert artifact.manifest is not None
    assert artifact.manifest.metrics == {"pictures": 3, "tiles": result.tiles, "tokens": result.tokens}
    assert index.tiling == imaging_preset("tiny").tiling
    assert [entry.path for entry in index.images] == list(SIZES)
    first = 0
    for seed, entry in enumerate(index.images):
        size = SIZES[entry.path]
        tiling = plan_tiling(size, index.tiling)
        expected = crop_tiles(noise(size, seed), tiling, Colour(127, 127, 127))
        assert (entry.first_tile, entry.tile_count, entry.tokens) == (first, tiling.tiles, tiling.tokens)
        assert (entry.grid, entry.canvas, entry.boxes) == (tiling.grid, tiling.canvas, tiling.boxes)
        np.testing.assert_array_equal(tiles[first : first + entry.tile_count], expected)
        first += entry.tile_count
    assert first == len(tiles)


def test_tiles_json_has_the_agreed_fields(photos: Path, tmp_path: Path) -> None:
    run(TINY, photos / "a.png", out=tmp_path / "tiles")
    index = json.loads((tmp_path / "tiles" / "tiles.json").read_text())
    agreed = {"path", "sha256", "width", "height", "rule", "alpha", "grid", "canvas", "boxes", "tokens"}
    assert agreed | {"first_tile", "tile_count"} <= set(index["images"][0])
    assert index["tiling"]["tile_size"] == TILE
    assert index["images"][0]["grid"] == [2, 1]


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(photos: Path, tmp_path: Path) -> None:
    first = run(TINY, photos, out=tmp_path / "one", threads=1)
    moved = photos.rename(tmp_path / "moved")
    (moved / "notes.txt").write_text("no picture, no difference")
    second = run(TINY, moved, out=tmp_path / "two", threads=3)
    assert first.out != second.out
    for name in ("tiles.safetensors", "tiles.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert open_artifact(tmp_path / "one", "tiles").digest == open_artifact(tmp_path / "two", "tiles").digest


def test_again_is_up_to_date_and_a_difference_is_named(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    first = run(TINY, photos, out=out)
    before = (out / "tiles.safetensors").stat().st_mtime_ns
    events = list(tile.run(TINY, [photos], out=out))
    assert any(isinstance(event, Notice) and "up to date" in event.text for event in events)
    assert (out / "tiles.safetensors").stat().st_mtime_ns == before
    assert result_of(iter(events)).as_dict() == first.as_dict()
    with pytest.raises(ArtifactError, match=r"alpha is 0.1, not 0.2"):
        run(TINY.model_copy(update={"alpha": 0.2}), photos, out=out)
    noise(Size(13, 13), 99).save(photos / "sub" / "c.png")
    with pytest.raises(ArtifactError, match="other inputs"):
        run(TINY, photos, out=out)
    run(TINY, photos, out=out, force=True)
    assert (out / "tiles.safetensors").stat().st_mtime_ns != before


def test_a_changed_picture_of_a_json_is_another_input(photos: Path, tmp_path: Path) -> None:
    file = photos / "data.json"
    file.write_text(json.dumps([{"image": "a.png"}, {"image": "sub/b.png"}]))
    assert run(TINY, file, out=tmp_path / "tiles").out == tmp_path / "tiles"
    noise(SIZES["a.png"], 98).save(photos / "a.png")
    with pytest.raises(ArtifactError, match="other inputs"):
        run(TINY, file, out=tmp_path / "tiles")


def test_all_broken_pictures_are_reported_together_and_nothing_is_left(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").touch()
    broken(photos)
    for options in ({}, {"out": tmp_path / "tiles"}):
        with pytest.raises(BluelmError) as caught:
            run(TINY, photos, photos / "absent.png", **options)
        whats = [problem.what for problem in caught.value.problems]
        assert len(whats) == 3
        for name in ("cut.png is a broken picture", "empty.png is empty", "absent.png does not exist"):
            assert any(name in what for what in whats), whats
    assert sorted(tmp_path.iterdir()) == [photos]


def test_damage_in_the_pixels_leaves_no_half_artifact(photos: Path, tmp_path: Path) -> None:
    broken(photos)
    with pytest.raises(ImageError, match=r"cut.png is a broken picture"):
        run(TINY, photos, out=tmp_path / "tiles")
    assert sorted(tmp_path.iterdir()) == [photos]


def test_very_many_broken_pictures_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    with pytest.raises(BluelmError) as caught:
        run(TINY, *paths)
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1].what == "20 more pictures cannot be read."


def test_plan_reads_headers_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    cut = broken(photos)
    planned = tile.plan(TINY, [photos], out=tmp_path / "tiles", compare=EVERY_RULE)
    assert {str(cut), str(photos / "a.png")} < {str(image.picture.path) for image in planned.images}
    assert tuple(planned.images[0].tilings) == EVERY_RULE
    assert not (tmp_path / "tiles").exists()
    cut.unlink()
    assert tile.plan(TINY, [photos], compare=EVERY_RULE).as_dict() == run(TINY, photos, compare=EVERY_RULE).as_dict()


def test_an_artifact_of_another_kind_is_no_folder_of_pictures(photos: Path, tmp_path: Path) -> None:
    run(TINY.model_copy(update={"preview": True}), photos, out=tmp_path / "tiles")
    with pytest.raises(ArtifactError, match="of kind tiles") as caught:
        run(TINY, tmp_path / "tiles")
    assert "bluelm data render" in caught.value.fix


def test_a_corpus_is_tiled_split_by_split(photos: Path, tmp_path: Path) -> None:
    with create(tmp_path / "corpus", ArtifactSpec("corpus", "data", {})) as draft:
        for split, name in (("train", "images/1.png"), ("heldout", "images/2.png")):
            (draft.path / "images").mkdir(exist_ok=True)
            noise(Size(50, 50)).save(draft.path / name)
            (draft.path / f"{split}.json").write_text(json.dumps([{"id": split, "image": name}]))
    run(TINY, tmp_path / "corpus", out=tmp_path / "tiles")
    assert [entry.path for entry in read_tiles_index(tmp_path / "tiles").images] == ["images/1.png", "images/2.png"]
    manifest = open_artifact(tmp_path / "tiles", "tiles").manifest
    assert manifest is not None
    assert manifest.parents[0].digest == open_artifact(tmp_path / "corpus", "corpus").digest


def test_previews_in_the_artifact_and_beside_it(photos: Path, tmp_path: Path) -> None:
    config = TINY.model_copy(update={"preview": True})
    run(config, photos, out=tmp_path / "tiles")
    inside = sorted(path.name for path in (tmp_path / "tiles" / "preview").iterdir())
    assert inside == ["a.relaxed.png", "b.relaxed.png", "c.relaxed.png"]
    assert open_artifact(tmp_path / "tiles", "tiles")
    drawings = tmp_path / "drawings"
    result = run(TINY, photos / "a.png", preview_to=drawings, compare=EVERY_RULE)
    names = {rule: f"{drawings}/a.{rule}.png" for rule in EVERY_RULE}
    assert {rule: values["preview"] for rule, values in result.as_dict()["images"][0]["rules"].items()} == names
    assert all(is_preview(Path(path)) for path in names.values())
    run(TINY, photos / "a.png", preview_to=drawings, compare=EVERY_RULE)  # its own are replaced
    (drawings / "a.relaxed.png").write_bytes(b"somebody's")
    with pytest.raises(UsageError, match="is not a preview"):
        run(TINY, photos / "a.png", preview_to=drawings)
    assert (drawings / "a.relaxed.png").read_bytes() == b"somebody's"


def test_progress_counts_every_picture(photos: Path, tmp_path: Path) -> None:
    events = [event for event in tile.run(TINY, [photos], out=tmp_path / "t") if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in events if event.label == "tiling"] == [(1, 3), (2, 3), (3, 3)]


def test_configuration_resolves_against_the_preset() -> None:
    resolved = TileConfig().resolved()
    assert resolved.spec == TilingSpec()
    assert resolved.resample == "bicubic"
    other = load_config(TileConfig, sets=["tile_size=336", "alpha=2e-1", "max_tiles=9"])
    assert other.spec == TilingSpec(alpha=0.2, max_tiles=9, tile_size=336, tokens_per_tile=144)
    with pytest.raises(UsageError, match=r"no preset 'tini'"):
        TileConfig(preset="tini").resolved()
    with pytest.raises(BluelmError, match="alpah"):
        load_config(TileConfig, sets=["alpah=0.1"])


@pytest.mark.parametrize(
    ("rule", "compare", "warned"),
    [("relaxed", (), True), ("internvl-1.5", (), False), ("internvl-1.5", ("relaxed",), True)],
)
def test_alpha_zero_is_said_to_be_no_llava_next(
    photos: Path, rule: str, compare: tuple[RuleName, ...], warned: bool
) -> None:
    config = TileConfig.model_validate({"alpha": 0, "rule": rule})
    notices = [event for event in tile.run(config, [photos], compare=compare) if isinstance(event, Notice)]
    assert bool(notices) == warned
    assert all("not LLaVA-NeXT" in notice.text and notice.level == "warning" for notice in notices)


def test_an_output_inside_the_input_is_not_tiled(photos: Path) -> None:
    config, out = TINY.model_copy(update={"preview": True}), photos / "tiles"
    first = run(config, photos, out=out, preview_to=photos / "drawn")
    before = (out / "artifact.json").read_bytes()
    events = list(tile.run(config, [photos], out=out, preview_to=photos / "drawn"))
    assert any(isinstance(event, Notice) and "up to date" in event.text for event in events)
    assert len(result_of(iter(events)).images) == len(first.images) == len(SIZES)
    assert (out / "artifact.json").read_bytes() == before
