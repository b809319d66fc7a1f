"""The verb behind `bluelm tile --stats`: inputs of all kinds into one set of figures, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import tile_stats
from stages.artifacts.errors import BluelmError, ImageError, UsageError
from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.recipes import load_config
from stages.device.imaging import sizes
from stages.device.imaging.decisions import decide
from stages.device.imaging.geometry import Size
from stages.device.imaging.rules import RULES
from stages.device.imaging.sources import Picture
from stages.device.imaging.statistics import ALL_RULES
from stages.measure.tiling_costs import TilingCosts
from stages.tile_stats import StatsConfig, StatsResult

BOX = StatsConfig(max_cols=3, max_rows=3)
PHOTOS = {"a.png": Size(394, 390), "sub/b.jpg": Size(380, 76), "c.webp": Size(500, 102)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    draw = np.random.default_rng(0)
    for name, size in PHOTOS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (size.height, size.width, 3), np.uint8)).save(folder / name)
    return folder


def run(config: StatsConfig, *inputs: Path, **options: Any) -> StatsResult:
    return result_of(tile_stats.run(config, inputs, **options))


def test_figures_are_those_of_the_decisions_about_each_picture(photos: Path) -> None:
    found = run(BOX, photos).as_dict()
    assert (found["images"], found["unread"]) == (3, {"count": 0, "first": []})
    assert list(found["rules"]) == list(ALL_RULES)
    decisions = [decide(Picture(photos / name, name), size, BOX.spec, list(RULES)) for name, size in PHOTOS.items()]
    for rule in RULES:
        tilings = [decision.tilings[rule] for decision in decisions]
        assert found["rules"][rule]["tiles"] == sum(tiling.tiles for tiling in tilings)
        assert found["rules"][rule]["tokens"] == sum(tiling.tokens for tiling in tilings)
        mean = np.mean([tiling.enlargement for tiling in tilings])
        assert found["rules"][rule]["mean_enlargement"] == pytest.approx(mean, rel=1e-12)
    # Figs. 3 and 9B: 1:1 for 2:2; 1:1 and 2:1 for 5:1.
    assert found["relaxed_vs"]["llava-next"] == {"smaller": 1, "equal": 2, "larger": 0}
    assert found["relaxed_vs"]["internvl-1.5"] == {"smaller": 2, "equal": 1, "larger": 0}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_several_inputs_are_one_corpus(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("394,390,7\n")
    rows = [{"image": "photos/c.webp"}] * 2
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = run(BOX, photos, tmp_path / "sizes.csv", tmp_path / "rows.json").as_dict()
    assert found["images"] == 3 + 7 + 2
    assert found["relaxed_vs"]["llava-next"] == {"smaller": 8, "equal": 4, "larger": 0}
    assert found["inputs"] == [str(photos), str(tmp_path / "sizes.csv"), str(tmp_path / "rows.json")]


def test_figures_are_the_same_however_few_sizes_are_held(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(BOX.model_copy(update={"alpha_sweep": True}), photos).as_dict()
    monkeypatch.setattr(sizes, "MOST_SIZES", 1)
    parts = run(BOX.model_copy(update={"alpha_sweep": True}), photos).as_dict()
    for rule in ALL_RULES:
        for key in ("mean_enlargement", "mean_kept"):
            found, expected = parts["rules"][rule].pop(key), whole["rules"][rule].pop(key)
            assert found == (expected if expected is None else pytest.approx(expected, rel=1e-12))
    for found, expected in zip(parts.pop("alpha_sweep"), whole.pop("alpha_sweep"), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    assert parts == whole


def test_no_pixel_is_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert run(BOX, photos).as_dict()["images"] == 3


def test_pictures_that_cannot_be_read_are_left_out_and_told(photos: Path) -> None:
    (photos / "empty.png").touch()
    for number in range(30):
        (photos / f"x{number}.jpg").write_bytes(b"no picture")
    events = list(tile_stats.run(BOX, [photos]))
    found = result_of(iter(events)).as_dict()
    assert found["images"] == 3
    assert found["unread"]["count"] == 31
    assert len(found["unread"]["first"]) == 10
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.level == "warning"
    assert notice.text.startswith("31 pictures or rows cannot be read and are left out")
    assert "empty.png is empty (0 bytes)" in notice.text
    assert any(isinstance(event, Progress) and event.done == 3 for event in events)


def test_inputs_without_any_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BluelmError) as caught:
        run(BOX, tmp_path / "absent", tmp_path / "other.csv")
    assert [problem.what.split(" cannot")[0] for problem in caught.value.problems] == [
        str(tmp_path / "absent"),
        str(tmp_path / "other.csv"),
    ]
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"no picture; the first of 1 problems: .*x\.png is not a picture"):
        run(BOX, tmp_path / "x.png")


def test_costs_are_given_or_measured_and_given_ones_win(photos: Path) -> None:
    measured = TilingCosts(0.5, 0.25, "bench: m")
    found = run(BOX, photos, measured=measured).as_dict()
    relaxed = found["rules"]["relaxed"]
    assert found["costs"] == {"seconds_per_tile": 0.5, "seconds_per_token": 0.25, "source": "bench: m"}
    assert relaxed["encode_seconds"] == 0.5 * relaxed["tiles"]
    assert relaxed["prefill_seconds"] == 0.25 * relaxed["tokens"]
    given = BOX.model_copy(update={"seconds_per_tile": 2.0})
    found = run(given, photos, measured=measured).as_dict()
    assert found["costs"] == {"seconds_per_tile": 2.0, "seconds_per_token": 0.25, "source": "given; bench: m"}
    found = run(BOX, photos).as_dict()
    assert found["costs"] is None
    assert "encode_seconds" not in found["rules"]["relaxed"]


def test_rules_may_be_chosen_and_relaxed_is_always_there(photos: Path) -> None:
    found = run(BOX.model_copy(update={"rules": ("qwen2-vl", "llava-next")}), photos).as_dict()
    assert list(found["rules"]) == ["relaxed", "llava-next", "qwen2-vl"]
    assert list(found["relaxed_vs"]) == ["llava-next", "qwen2-vl"]


def test_a_report_draws_the_inputs_own_pictures(photos: Path, tmp_path: Path) -> None:
    result = run(BOX.model_copy(update={"alpha_sweep": True}), photos, report=tmp_path / "r.html")
    assert result.report == tmp_path / "r.html"
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()
    # A header is whole and the pixels are not: the next picture is taken.
    data = (photos / "a.png").read_bytes()
    (photos / "a.png").write_bytes(data[: len(data) // 2])
    run(BOX, photos, report=tmp_path / "r.html")
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()
    (tmp_path / "sizes.csv").write_text("640,480\n")
    run(BOX, tmp_path / "sizes.csv", report=tmp_path)
    assert "data:image/jpeg" not in (tmp_path / "report.html").read_text()
    run(BOX, tmp_path / "sizes.csv", report=tmp_path, figures_from=[photos / "c.webp"])
    assert "data:image/jpeg" in (tmp_path / "report.html").read_text()


def test_what_stops_a_report_stops_it_before_anything_is_read(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(UsageError, match="is no report of bluelm"):
        next(tile_stats.run(BOX, [photos], report=tmp_path / "mine.html"))
    with pytest.raises(ImageError, match=r"absent\.png does not exist"):
        next(tile_stats.run(BOX, [photos], report=tmp_path / "r.html", figures_from=[tmp_path / "absent.png"]))
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_a_plan_looks_at_nothing(photos: Path, tmp_path: Path) -> None:
    planned = tile_stats.plan(BOX, [photos], report=tmp_path / "r").as_dict()
    assert planned["report"] == str(tmp_path / "r" / "report.html")
    assert planned["config"]["tile_size"] == 384
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "text", ["seconds_per_tile=0", "seconds_per_token=.inf", "alphas=[]", "alphas=[1.5]", "worst=-1", "rules=[x]"]
)
def test_settings_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(BluelmError) as caught:
        load_config(StatsConfig, sets=[text])
    assert caught.value.problems[0].what.startswith(f"the configuration: {text.split('=')[0]}")


def test_alpha_zero_is_said_to_be_another_rule(photos: Path) -> None:
    events = list(tile_stats.run(BOX.model_copy(update={"alpha": 0.0}), [photos]))
    assert any(isinstance(event, Notice) and "alpha 0 is not LLaVA-NeXT" in event.text for event in events)
