"""bench estimate: what it tells of the paper's configuration, of an export, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import bench_estimate
from stages.artifacts.errors import RecipeError, UsageError
from stages.bench_estimate import EstimateConfig
from tests.measure.test_estimate import KNOWN, ROWS, measured_on


def test_the_paper_s_configuration_beside_its_phone() -> None:
    config = EstimateConfig(picture=("768x1536",), policy="paper", chunk=128, device=("dimensity-9300",))
    made = bench_estimate.run(config, None).as_dict()
    assert (made["tokens"]["image"], made["pictures"][0]["grid"]) == (1764, [2, 4])
    (phone,) = made["devices"]
    by_stage = {one["stage"]: one["seconds"] for one in phone["seconds"]}
    # Prefill was fitted on the paper's; encoding follows from it and is not: 2.06 s was measured.
    assert by_stage["prefill"] == pytest.approx(2.7, rel=0.01) and phone["fitted"] == ["prefill"]
    assert by_stage["encode"] == pytest.approx(2.06, rel=0.3)
    assert phone["decode_tok_s"] > 24.4 and phone["peak_mb"] < 2200
    assert not phone["runtime_memory_known"] and any("memory of program" in what for what in phone["unknown"])
    assert made["paper"]["peak_mb"] == 2200


def test_what_is_not_known_is_none_and_named() -> None:
    made = bench_estimate.run(EstimateConfig(device=("snapdragon-8-gen-3",)), None).as_dict()
    (phone,) = made["devices"]
    encode, prefill, _ = phone["seconds"]
    assert encode["seconds"] is None and prefill["missing"] == ["text_products", "text_attention"]
    assert any(what.startswith("time of encode") for what in phone["unknown"])


def test_an_export_is_estimated_without_loading_it(tiny_onnx: Path) -> None:
    config = EstimateConfig(picture=("224x448", "50x50"), prompt_tokens=300, device=("dimensity-9300",))
    made = bench_estimate.run(config, tiny_onnx)
    assert [one.tiles for one in made.pictures] == [9, 1] and made.image_tokens == 160
    assert made.as_dict()["paper"] is None


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"picture": ("768",)}, "--picture is '768'"),
        ({"tiles": 20}, "20 tiles take 3920 tokens"),
        ({"prompt_tokens": 4090, "generate": 7}, "4090 tokens to read and 7 to write are 4097"),
        ({"preset": "bluelm"}, "no model preset 'bluelm'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        bench_estimate.run(EstimateConfig(**values), None)
    assert what in caught.value.what


def test_a_model_has_the_shape_it_has(tiny_onnx: Path) -> None:
    with pytest.raises(UsageError, match="together with --preset"):
        bench_estimate.run(EstimateConfig(layers=2), tiny_onnx)
    with pytest.raises(RecipeError):
        bench_estimate.run(EstimateConfig(device=("pager",)), None)


def test_fit_and_compare_through_the_command_line(bluelm: Callable[..., Any], tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    cases = [*ROWS, {**ROWS[0], "prompt_tokens": 1024}]
    records.write_text("".join(measured_on(KNOWN, row).model_dump_json() + "\n" for row in cases), encoding="utf-8")
    fit = ("bench", "estimate", "--fit", records, "--fit-on", 4, "--out", tmp_path / "d.yaml", "--name", "here")
    fitted = bluelm(*fit, "--json").json()
    assert fitted["fitted_on"] == 4 and len(fitted["rows"]) == 4
    assert max(abs(row["error"]) for row in fitted["rows"]) < 1e-6
    shown = bluelm("bench", "estimate", "--device", tmp_path / "d.yaml", "--records", records, "--layers", 2)
    assert shown.code == 0 and "predicted beside measured" in shown.out and "+0.0 %" in shown.out
    refused = bluelm("bench", "estimate", "--fit", tmp_path / "none.jsonl")
    assert refused.code == 2 and "cannot be read" in refused.err
    planned = bluelm("bench", "estimate", "--tiles", 1, "--device", "raspberry-pi-5", "--json")
    assert json.loads(planned.out)["devices"][0]["device"] == "Raspberry Pi 5"
