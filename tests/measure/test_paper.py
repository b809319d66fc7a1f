"""The paper's tables as data, and ours beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.artifacts.errors import RecipeError, UsageError
from stages.artifacts.recipes import validate
from stages.bench_paper import run
from stages.device.imaging.presets import imaging_preset
from stages.measure.beside_paper import beside_paper
from stages.measure.paper import PaperTable, paper_tables
from stages.measure.records import record_of, write_records


def test_every_table_and_figure_of_the_evaluation_is_there() -> None:
    tables = paper_tables()
    assert {"table1", "table2", "table3", "table4", "table5", "table7-8", "fig5", "fig7", "fig8", "sec5.1"} <= set(
        tables
    )
    assert all(table.section and table.rows for table in tables.values())


def test_sums_and_averages_of_the_paper_hold_in_our_data() -> None:
    """A digit mistyped would show."""
    tables = paper_tables()
    phone = {key: tables["table5"].value("BlueLM-V-3B", key) for key in ("load_s", "encode_s", "image_s")}
    assert phone["load_s"] + phone["encode_s"] == pytest.approx(phone["image_s"])
    fig5 = {str(row["quantity"]): row["seconds"] for row in tables["fig5"].rows}
    assert fig5["blocks_s"] + fig5["first_patch_s"] == pytest.approx(fig5["encode_s"])  # type: ignore[operator]
    for column in ("public", "in_house"):
        parts = [tables["table1"].value(kind, column) for kind in ("pure text", "caption", "VQA", "OCR")]
        assert sum(parts) == pytest.approx(tables["table1"].value("total", column), abs=0.051)
    for row in tables["table3"].rows:
        scores = [value for name, value in row.items() if name not in ("model", "params", "average")]
        mean = sum(score / 10 if score > 100 else score for score in scores) / len(scores)  # type: ignore
        # OCRBench counts out of 1000; averages are printed to a digit (Qwen2-VL's to none).
        assert mean == pytest.approx(row["average"], abs=0.55 if row["model"] == "Qwen2-VL" else 0.06)
    steps = {str(row["stage"]): row for row in tables["table7-8"].rows}
    # 2.47 million captions once in 3434 steps of 720.
    assert steps["pre-train"]["steps"] * steps["pre-train"]["global_batch"] == pytest.approx(2.47e6, rel=0.01)  # type: ignore


def test_the_papers_shape_is_our_presets() -> None:
    vision = {str(row["quantity"]): row["value"] for row in paper_tables()["vision"].rows}
    spec = imaging_preset("bluelm-v-3b").tiling
    assert (spec.tile_size, spec.tokens_per_tile) == (vision["tile_size"], vision["tokens_per_tile"])
    assert vision["screen_tiles"] * vision["tokens_per_tile"] == vision["screen_tokens"]  # type: ignore[operator]
    assert vision["screen_tiles"] * vision["patches_per_tile"] == vision["screen_tokens_before"]  # type: ignore[operator]


def test_the_published_cases_are_decided_as_published() -> None:
    cases = run().cases
    assert len(cases) == 8 and all(case.as_dict()["same"] for case in cases)


def test_ours_stand_beside_the_papers_with_what_differs(tmp_path: Path) -> None:
    records = [
        record_of("load", "bluelm-v-3b", [1.0]),
        record_of("encode", "bluelm-v-3b", [9.0], tokens=1764, tiles=9, tiles_per_batch=4, n_prompt=1764),
        record_of("encode", "bluelm-v-3b", [5.0], tokens=1764, tiles=9, tiles_per_batch=1, n_prompt=1764),
        record_of("prefill", "bluelm-v-3b", [30.0], tokens=2048, n_prompt=2048, chunk=128),
        record_of("decode", "bluelm-v-3b", [2.0], tokens=20, n_gen=20, n_prompt=1984, chunk=128),
        record_of("prefill", "x", [1.0], tokens=2048, n_prompt=2048, engine="llama.cpp"),
    ]
    rows = {row.quantity: row for row in beside_paper(records, 2107.0)}
    assert (rows["load"].ours, rows["load"].paper, rows["load"].differs) == (1.0, 0.47, "")
    # The fastest batch speaks; peers don't.
    assert rows["picture to image tokens"].ours == 5.0 and rows["prefill"].ours == 30.0
    assert rows["decode"].ours == 10.0 and rows["decode"].differs == "1,984 tokens, not 2,048"
    assert rows["peak memory"].ours == pytest.approx(2.107) and rows["peak memory"].paper == 2.2
    small = beside_paper([record_of("encode", "toy", [1.0], tokens=4, tiles=1)])
    assert [row.differs for row in small] == ["model toy, 1 tiles, not 9"]
    write_records(tmp_path / "results.jsonl", records)
    assert [row.quantity for row in run([tmp_path]).rows] == [*rows][:-1]


def test_tiling_counts_stand_beside_section_5_1(tmp_path: Path) -> None:
    counts = {"llava-next": {"smaller": 130, "larger": 0}, "internvl-1.5": {"smaller": 4419, "larger": 55}}
    config = {"max_cols": 3, "max_rows": 3, "max_tiles": None}
    file = tmp_path / "stats.json"
    file.write_text(json.dumps({"images": 5000, "relaxed_vs": counts, "config": config, "inputs": ["coco"]}))
    rows = run([file]).rows
    assert [(row.ours, round(row.paper, 1)) for row in rows] == [(2.6, 4.6), (pytest.approx(88.38), 83.8), (1.1, 4.0)]
    file.write_text(json.dumps({"images": 5000, "relaxed_vs": counts}))
    with pytest.raises(UsageError, match="lacks what bluelm tile --stats --json prints"):
        run([file])


def test_a_table_with_a_hole_is_refused() -> None:
    broken = {
        "id": "t",
        "section": "1",
        "title": "t",
        "settings": {},
        "columns": {"a": "", "b": ""},
        "rows": [{"a": 1}],
    }
    with pytest.raises(RecipeError, match="t: a row has a"):
        validate(PaperTable, broken, "t.yaml")
    with pytest.raises(KeyError):
        paper_tables()["table5"].value("MiniCPM-V 2.5", "load_s")
