"""Drawings: the picture where it lies, padding that is no picture, lines on the tile edges; files kept safe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.preview import caption, draw_preview, is_preview, save_preview
from stages.device.imaging.preview_folder import prepare_preview_folder, preview_stems, put_preview
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import plan_tiling

MARGIN = 16
LINE, FRAME = (225, 29, 72), (37, 99, 235)


def test_the_drawing_shows_picture_padding_and_grid() -> None:
    size = Size(1080, 2400)
    tiling = plan_tiling(size, TilingSpec(tile_size=100))  # 2:4, canvas 200×400, shown 1.05 times as large
    drawing = np.asarray(draw_preview(Image.new("RGB", size, (0, 200, 0)), tiling, "screen.png"))
    canvas = drawing[MARGIN : MARGIN + 420, MARGIN : MARGIN + 210]
    green = (canvas == (0, 200, 0)).all(-1)
    assert green[:, 40:80].mean() > 0.9
    assert not green[:, :8].any()  # padding left of the picture
    for edge in (0, 105, 210, 315):
        assert (canvas[edge, 40:90] == LINE).all()
    assert (canvas[300:310, 105] == LINE).all()
    thumbnail = drawing[MARGIN + 40, MARGIN + 210 + 24 + 60]
    assert thumbnail.tolist() == [0, 200, 0]
    below = drawing[MARGIN + 430 :]
    assert (below < 100).all(-1).sum() > 200  # text


@pytest.mark.parametrize("size", [Size(1, 1), Size(20000, 1), Size(3, 9000), Size(5000, 5000)])
@pytest.mark.parametrize("rule", ["relaxed", "internvl-1.5"])
def test_any_shape_can_be_drawn(size: Size, rule: str) -> None:
    tiling = plan_tiling(size, TilingSpec.model_validate({"rule": rule, "tile_size": 16, "alpha": 0}))
    drawing = draw_preview(Image.new("RGB", size), tiling, "bild-ü-図.png")
    assert max(drawing.size) < 3000


def test_the_caption_has_the_figures() -> None:
    lines = caption(plan_tiling(Size(1080, 2400), TilingSpec()))
    assert "2:4" in lines[0]
    assert "9 tiles, 1764 tokens" in lines[0]
    assert lines[1] == "scale 0.641   padding 9.9%   canvas/picture area 0.455"
    stretched = caption(plan_tiling(Size(500, 102), TilingSpec(rule="internvl-1.5")))
    assert "3.84 across, 3.76 down" in stretched[1]
    assert all(line.isascii() for line in (*lines, *stretched))


def test_stems_are_unique_short_and_readable() -> None:
    long = "ü" * 200
    stems = preview_stems(["a/x.png", "b/x.jpg", "X.gif", "x-2.png", f"{long}.png", "図.png", ".png"])
    assert stems[:4] == ["x", "x-2", "X-3", "x-2-2"]
    assert len({stem.lower() for stem in stems}) == len(stems)
    assert all(0 < len(stem.encode()) <= 160 for stem in stems)
    assert stems[5] == "図"


def test_only_previews_are_replaced(tmp_path: Path) -> None:
    tiling = plan_tiling(Size(8, 8), TilingSpec(tile_size=16))
    drawing = draw_preview(Image.new("RGB", (8, 8)), tiling, "a")
    ours, photo, text = tmp_path / "ours.png", tmp_path / "photo.png", tmp_path / "text.png"
    put_preview(drawing, ours)
    assert is_preview(ours)
    Image.new("RGB", (8, 8)).save(photo)
    text.write_text("mine")
    prepare_preview_folder(tmp_path, [ours, tmp_path / "new.png"])
    with pytest.raises(UsageError) as caught:
        prepare_preview_folder(tmp_path, [photo])
    assert "photo.png exists and is not a preview" in caught.value.what
    with pytest.raises(Exception, match="2 problems"):
        prepare_preview_folder(tmp_path, [photo, ours, text])
    assert text.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        prepare_preview_folder(tmp_path / "file" / "sub", [])


def test_a_preview_is_a_png_marked_as_ours(tmp_path: Path) -> None:
    save_preview(Image.new("RGB", (3, 3)), tmp_path / "a")
    with Image.open(tmp_path / "a") as image:
        assert (image.format, image.info["Software"]) == ("PNG", "bluelm tile")
