"""`bluelm tile --stats` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "sizes.csv"
    file.write_text("width,height,count\n394,390,3\n380,76,2\n")
    return file


def test_the_agreed_object_on_coco(bluelm: Run, data_dir: Path) -> None:
    file = data_dir / "sizes" / "coco_val2017.csv"
    done = bluelm("tile", file, "--stats", "--max-grid", "3x3", "--json")
    assert (done.code, done.err) == (0, "")
    found = done.json()
    assert found["images"] == 5000
    assert {"tiles", "tokens", "mean_enlargement"} <= set(found["rules"]["relaxed"])
    assert found["relaxed_vs"]["llava-next"]["smaller"] == 130
    assert found["relaxed_vs"]["internvl-1.5"] == {"smaller": 4419, "equal": 526, "larger": 55}


def test_tables_answer_every_question(bluelm: Run, listed: Path) -> None:
    done = bluelm("tile", listed, "--alpha-sweep", "--max-grid", "3x3", "--seconds-per-tile", "0.5")
    assert done.code == 0
    for title in ("5 pictures", "seconds (given)", "the relaxed rule's grid", "area", "enlarged most", "by alpha"):
        assert title in done.out
    assert "sizes.csv, line 3" in done.out
    # Relaxed is smaller than LLaVA-NeXT's for the three of 394×390.
    (row,) = [line.split() for line in done.out.splitlines() if line.split()[:2] == ["llava-next", "3"]]
    assert row == ["llava-next", "3", "2", "0", "60", "40", "0"]


def test_tables_fit_a_terminal_of_80_columns(bluelm: Run, data_dir: Path) -> None:
    file = data_dir / "sizes" / "coco_val2017.csv"
    done = bluelm("tile", file, "--alpha-sweep", "--max-grid", "3x3", "--seconds-per-token", "0.001")
    assert done.code == 0
    assert max(len(line.rstrip()) for line in done.out.splitlines()) <= 80


def test_a_report_is_written_and_said(bluelm: Run, listed: Path, tmp_path: Path) -> None:
    done = bluelm("tile", listed, "--report", tmp_path / "new", "--rules", "llava-next")
    assert done.code == 0
    assert f"report in {tmp_path}/new/report.html" in done.out
    assert "xcomposer" not in (tmp_path / "new" / "report.html").read_text()
    as_json = bluelm("tile", listed, "--report", tmp_path / "new", "--json").json()
    assert as_json["report"] == f"{tmp_path}/new/report.html"


def test_costs_come_from_a_bench(bluelm: Run, listed: Path, tmp_path: Path) -> None:
    rows = [{"test": "encode", "model": "m", "ms_per_tile": 250.0}]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    found = bluelm("tile", listed, "--stats", "--cost-from", tmp_path, "--json").json()
    relaxed = found["rules"]["relaxed"]
    assert (relaxed["encode_seconds"], relaxed["prefill_seconds"]) == (0.25 * relaxed["tiles"], None)
    done = bluelm("tile", listed, "--stats", "--cost-from", listed)
    assert (done.code, "is no bench" in done.err) == (2, True)


def test_a_dry_run_counts_nothing(bluelm: Run, listed: Path, tmp_path: Path) -> None:
    done = bluelm("tile", listed, "--report", tmp_path / "new", "--dry-run", "--json")
    assert done.json()["dry_run"] is True
    assert done.json()["config"]["alpha"] == 0.1
    assert not (tmp_path / "new").exists()
    assert f"would count {listed}" in bluelm("tile", listed, "--stats", "--dry-run").out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--stats", "--out", "x"], "--out does not go with --stats"),
        (["--alpha-sweep", "--compare", "--preview"], "--compare does not go with --stats"),
        (["--images", "x"], "--images needs --stats"),
        (["--seconds-per-tile", "1"], "--seconds-per-tile needs --stats"),
        (["--stats", "--rules", "nearest"], "--rules 'nearest' is not known"),
        (["--stats", "--max-grid", "3"], "--max-grid '3' is not a grid"),
        (["--stats", "--seconds-per-tile", "-1"], "seconds_per_tile"),
        ([], "sizes.csv is a list, and no picture"),
    ],
)
def test_flags_that_do_not_go_together(bluelm: Run, listed: Path, words: list[str], what: str) -> None:
    done = bluelm("tile", listed, *words)
    assert done.code == 2
    assert what in done.err
    assert "Why: " in done.err
    assert "Fix: " in done.err


def test_a_hostile_list_is_refused_with_line_and_value(bluelm: Run, listed: Path) -> None:
    listed.write_text("width,height\n640,480\n640,0\n1e9,5\n")
    done = bluelm("tile", listed, "--stats", "--json")
    assert (done.code, done.out) == (2, "")
    assert "line 3: the height '0' is no whole number" in done.err
    assert "line 4: the width '1e9' is no whole number" in done.err


def test_pictures_elsewhere(bluelm: Run, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (394, 390)).save(tmp_path / "pictures" / "1.png")
    (tmp_path / "data.json").write_text(json.dumps([{"image": "1.png"}]))
    done = bluelm("tile", tmp_path / "data.json", "--stats", "--images", tmp_path / "pictures", "--json")
    assert done.json()["images"] == 1
