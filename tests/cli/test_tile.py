"""`bluelm tile` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bluelm_cli.bare_flag import fill_bare_flags
from stages.device.imaging.presets import imaging_preset

Run = Callable[..., Any]
TILE = imaging_preset("tiny").tiling.tile_size


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    path = tmp_path / "screen.png"
    Image.new("RGB", (1080, 2400), "navy").save(path)
    return path


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    path = tmp_path / "figure.jpg"
    Image.new("RGB", (394, 390), "teal").save(path)
    return path


def test_compare_json_is_the_documented_object(bluelm: Run, screen: Path, figure: Path) -> None:
    done = bluelm("tile", screen, figure, "--compare", "--json")
    assert (done.code, done.err) == (0, "")
    images = done.json()["images"]
    assert [(image["path"], image["width"], image["height"]) for image in images] == [
        (str(screen), 1080, 2400),
        (str(figure), 394, 390),
    ]
    for image in images:
        assert list(image["rules"]) == ["relaxed", "llava-next", "internvl-1.5", "ferret-ui-2", "xcomposer2-4khd"]
        for decision in image["rules"].values():
            assert {"grid", "canvas", "tiles", "tokens", "enlargement"} <= set(decision)
    relaxed = images[0]["rules"]["relaxed"]
    assert (relaxed["grid"], relaxed["canvas"], relaxed["tiles"], relaxed["tokens"]) == ([2, 4], [768, 1536], 9, 1764)
    by_next = images[1]["rules"]["llava-next"]
    assert by_next["canvas"] == [768, 768]
    assert by_next["enlargement"] == pytest.approx(3.84, abs=0.01)
    assert images[1]["rules"]["relaxed"] | {"enlargement": 0} == {
        "grid": [1, 1],
        "canvas": [384, 384],
        "tiles": 1,
        "tokens": 196,
        "enlargement": 0,
        "picture": [0, 1, 384, 382],
    }


@pytest.mark.parametrize(
    ("words", "alpha"),
    [
        (["--alpha"], 0.1),
        (["--alpha", "0.2"], 0.2),
        (["--alpha=0.2"], 0.2),
        (["--alpha", "--json"], 0.1),
        ([], 0.1),
    ],
)
@pytest.mark.parametrize("picture_first", [True, False])
def test_alpha_bare_and_with_a_number(
    bluelm: Run, figure: Path, words: list[str], alpha: float, picture_first: bool
) -> None:
    line = [figure, *words] if picture_first else [*words, figure]
    done = bluelm("tile", *line, "--json")
    assert done.code == 0, done.err
    assert done.json()["config"]["alpha"] == alpha
    assert list(done.json()["images"][0]["rules"]) == ["relaxed"]


def test_bare_flags_are_filled_only_where_no_number_follows() -> None:
    usual = {"--alpha": "0.1"}
    assert fill_bare_flags(["--alpha"], usual) == ["--alpha", "0.1"]
    assert fill_bare_flags(["--alpha", "a.png"], usual) == ["--alpha", "0.1", "a.png"]
    for number in ("0.2", "-1", "1e-3", "nan"):
        assert fill_bare_flags(["--alpha", number, "a"], usual) == ["--alpha", number, "a"]
    assert fill_bare_flags(["a", "--", "--alpha"], usual) == ["a", "--", "--alpha"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-grid", "0x4"], "--max-grid '0x4' is not a grid"),
        (["--max-grid", "65x4"], "--max-grid '65x4' is not a grid"),
        (["--max-grid", "four"], "--max-grid 'four' is not a grid"),
        (["--max-tiles", "0"], "--max-tiles 0 is not a number of tiles"),
        (["--alpha", "-1"], "--alpha -1 is not a share"),
        (["--alpha", "nan"], "--alpha nan is not a share"),
        (["--alpha", "1"], "--alpha 1 is not a share"),
        (["--preset", "tini"], "Did you mean tiny?"),
        (["--rule", "llava"], "Did you mean llava-next?"),
        (["--rule", "zzz"], "Known: relaxed, llava-next, internvl-1.5, ferret-ui-2, xcomposer2-4khd."),
        (["--rule", "mini-monkey"], "--rule mini-monkey cuts no tiles"),
        (["--set", "rule=qwen2-vl"], "rule: qwen2-vl is only counted"),
        (["--rules", "relaxed,minicpm"], "Did you mean minicpm-v?"),
        (["--rules", ""], "--rules '' is not known"),
        (["--max-tiles", "9", "--max-grid", "3x3"], "were both given"),
        (["--set", "alpah=0.1"], "alpah"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_work_is_said_in_three_beats(bluelm: Run, figure: Path, words: list[str], said: str) -> None:
    done = bluelm("tile", figure, *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Error: " in done.err
    assert "Why: " in done.err
    assert "Fix: " in done.err
    assert "Traceback" not in done.err


def test_several_wrong_flags_are_reported_together(bluelm: Run, figure: Path) -> None:
    done = bluelm("tile", figure, "--alpha", "-1", "--rule", "zzz", "--max-grid", "x")
    assert done.code == 2
    assert "3 problems" in done.err


def test_candidates_by_flag_beat_the_recipe(bluelm: Run, screen: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tile.yaml"
    recipe.write_text("max_tiles: 12\nalpha: 1e-1\n")
    by_recipe = bluelm("tile", screen, "--recipe", recipe, "--json").json()
    assert by_recipe["images"][0]["rules"]["relaxed"]["grid"] == [2, 5]
    by_flag = bluelm("tile", screen, "--recipe", recipe, "--max-grid", "3×3", "--json").json()
    assert by_flag["images"][0]["rules"]["relaxed"]["grid"] == [2, 3]
    by_set = bluelm("tile", screen, "--recipe", recipe, "--set", "max_tiles=8", "--json").json()
    assert by_set["images"][0]["rules"]["relaxed"]["grid"] == [2, 4]


def test_alpha_zero_warns_on_stderr_only(bluelm: Run, figure: Path) -> None:
    for words in ([], ["--dry-run"]):
        done = bluelm("tile", figure, "--alpha", "0", "--json", *words)
        assert done.code == 0
        assert "not LLaVA-NeXT" in done.err
        assert done.json()["images"][0]["rules"]["relaxed"]["grid"] == [4, 4]


def test_the_table_has_a_row_per_rule(bluelm: Run, screen: Path) -> None:
    done = bluelm("tile", screen, "--compare")
    assert done.code == 0
    for text in ("relaxed", "llava-next", "internvl-1.5", "2:4", "768×1536", "1,764"):
        assert text in done.out


def test_chosen_rules_are_compared_and_schemes_only_counted(bluelm: Run, screen: Path) -> None:
    """The chosen rule is always there; a scheme of two grids shows both; the total is the chosen rule's."""
    words = ["tile", screen, "--max-tiles", "9", "--rules", "qwen2-vl,llava-next,mini-monkey,qwen2-vl"]
    rules = bluelm(*words, "--json").json()["images"][0]["rules"]
    assert list(rules) == ["relaxed", "llava-next", "qwen2-vl", "mini-monkey"]
    assert rules["qwen2-vl"] == {
        "grids": [[1, 1]],
        "tiles": 1,
        "tokens": 24 * 53,  # 672×1484
        "enlargement": pytest.approx(672 * 1484 / (1080 * 2400)),
    }
    # Detailed 2:4, and of 3 to 7 tiles 1:3, since 1:2 has 2 and 2:4 is taken.
    assert (rules["mini-monkey"]["grids"], rules["mini-monkey"]["tiles"]) == ([[2, 4], [1, 3]], 8 + 3 + 1)
    shown = bluelm(*words)
    assert "2:4 + 1:3" in shown.out
    assert "1 picture, 9 tiles, 1,764 tokens by relaxed" in shown.out
    assert set(bluelm("tile", screen, "--rules", "all", "--json").json()["images"][0]["rules"]) >= {"minicpm-v", *rules}


def test_many_pictures_are_counted_by_grid(bluelm: Run, tmp_path: Path) -> None:
    for number in range(61):
        Image.new("L", (400 if number % 2 else 10, 10)).save(tmp_path / f"{number}.png")
    done = bluelm("tile", tmp_path, "--rules", "relaxed,mini-monkey,qwen2-vl")
    assert done.code == 0
    assert "61 pictures, 121 tiles" in done.out
    rows = {tuple(line.split()) for line in done.out.splitlines()}
    assert {
        ("relaxed", "1:1", "31", "31", "6,076"),
        ("qwen2-vl", "1:1", "61", "61", "514"),
    } <= rows  # 31 × 2×2, 30 × 13×1
    assert ".png" not in done.out


def test_one_is_not_counted_as_many(bluelm: Run, figure: Path) -> None:
    assert "1 picture, 1 tile, 9 tokens" in bluelm("tile", figure, "--preset", "tiny", "--max-tiles", "1").out


def test_out_dry_run_and_again(bluelm: Run, figure: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    words = ("tile", figure, "--preset", "tiny", "--preview", "--out", out)
    planned = bluelm(*words, "--dry-run", "--json").json()
    assert planned["dry_run"]
    assert not out.exists()
    first = bluelm(*words, "--json")
    assert first.code == 0
    assert first.json() | {"dry_run": True} == planned
    assert planned["bytes"] == planned["tiles"] * 3 * TILE * TILE
    assert (out / "preview" / "figure.relaxed.png").is_file()
    again = bluelm(*words)
    assert (again.code, "up to date" in again.err) == (0, True)
    other = bluelm(*words, "--alpha", "0.3")
    assert (other.code, "alpha is 0.1, not 0.3" in other.err) == (2, True)
    assert bluelm(*words, "--alpha", "0.3", "--force").code == 0


def test_preview_without_out(bluelm: Run, figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = bluelm("tile", figure, "--preview", "--json")
    assert done.code == 0
    assert Path(done.json()["images"][0]["rules"]["relaxed"]["preview"]) == Path("tile-preview/figure.relaxed.png")
    assert (tmp_path / "tile-preview" / "figure.relaxed.png").is_file()
    assert bluelm("tile", figure, "--preview-to", "elsewhere", "--compare").code == 0
    assert len(list((tmp_path / "elsewhere").iterdir())) == 5


def test_broken_pictures_exit_2_without_a_traceback(bluelm: Run, data_dir: Path) -> None:
    done = bluelm("tile", data_dir / "img_edge", "--json")
    assert (done.code, done.out) == (2, "")
    for name in ("truncated_image.png", "broken.png", "decompression_bomb.gif", "bmp__b__badwidth.bmp"):
        assert name in done.err
    assert "Traceback" not in done.err
    done = bluelm("tile", data_dir / "photos" / "exif", data_dir / "photos" / "llava", "--compare", "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["images"]) == 20


def test_a_wrong_artifact_is_not_overwritten(bluelm: Run, figure: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = bluelm("tile", figure, "--out", tmp_path / "mine", "--force")
    assert done.code == 2
    assert "is not an artifact" in done.err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_help_shows_examples(bluelm: Run) -> None:
    done = bluelm("tile", "--help")
    assert done.code == 0
    assert "Example: bluelm tile photo.png --compare" in done.out
