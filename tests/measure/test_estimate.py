"""Estimates against what graphs really hold, and fits against constants that are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import DataError, RecipeError, UsageError
from stages.artifacts.folder import open_artifact
from stages.device.contract.device_config import read_device_config
from stages.measure.decoder_work import decoder_work
from stages.measure.estimate_check import MeasuredCase, compare, read_measured
from stages.measure.estimate_counts import counts_of
from stages.measure.estimate_device import Device, Overheads, Speeds, device_names, read_device, write_device
from stages.measure.estimate_fit import fit_device, nonnegative
from stages.measure.estimate_memory import memory_over_time, peak_of
from stages.measure.estimate_plan import Case
from stages.measure.estimate_shape import artifact_shape, preset_shape
from stages.measure.estimate_time import seconds_of
from stages.measure.graph_file import read_graph_file
from stages.measure.product_forms import fully_read, products_of

PRESET = "bluelm-v-3b"


def test_what_an_exported_model_holds_is_what_the_formulas_say(tiny_onnx: Path) -> None:
    shape = artifact_shape(open_artifact(tiny_onnx, "onnx"))
    assert (shape.layers, shape.vision_layers, shape.width, shape.mlp, shape.vision_mlp) == (1, 1, 128, 256, 256)
    case = Case(policy="int8", prompt_tokens=100, block=128)
    counts = counts_of(shape, case)
    work = decoder_work(tiny_onnx, read_device_config(tiny_onnx).decoder)
    assert counts.token_bytes == pytest.approx(work.weight_bytes, rel=0.03)
    assert counts.prefill_products == 2 * 100 * counts.layer_weights
    # The layers' share of what the graph multiplies; the head comes once.
    assert counts.layer_weights == work.macs + work.macs_once - shape.vocab * shape.width
    assert counts.kv_bytes == work.kv_bytes
    vision = read_graph_file(tiny_onnx / "vision.onnx")
    stored = sum(vision.weights[name].nbytes for name in fully_read(vision))
    patch = read_graph_file(tiny_onnx / "patch_embed.onnx")
    stored += sum(weight.nbytes for weight in patch.weights.values())
    assert counts.vision_bytes == pytest.approx(stored, rel=0.03)
    tower = sum(product.macs or 0 for product in products_of(vision) if "layers" in product.name)
    connector = sum(product.macs or 0 for product in products_of(vision) if "layers" not in product.name)
    patches = 3 * shape.patch_size**2 * shape.vision_width
    wanted = shape.patches * (tower + patches) + shape.tiling.tokens_per_tile * connector
    assert counts.encode_products == 2 * wanted


def test_the_3b_shape_is_what_leads_measured() -> None:
    counts = counts_of(preset_shape(PRESET), Case(policy="paper", chunk=128))
    assert counts.layers * counts.layer_weights == pytest.approx(2.442e9, rel=1e-3)
    assert counts.layers * counts.layer_bytes == pytest.approx(1.297e9, rel=2e-3)
    assert counts.vision_bytes == pytest.approx(0.44e9, rel=0.03)
    assert counts.kv_bytes * 2048 == pytest.approx(377e6, rel=2e-3)


KNOWN = Device(
    name="made up",
    expands=True,
    int16_passes=2,
    speeds=Speeds(
        vision_products=6e11,
        vision_attention=1e11,
        text_products=5e11,
        text_attention=2e11,
        expansion=4e9,
        read_bytes=3e10,
        layer_steps=2e4,
    ),
    memory=Overheads(
        process_mb=70,
        packed=1.1,
        load_spike=1.05,
        tile_mb=90,
        repeat_mb=80,
        kept_mb=20,
        prefill_mb=5,
        chunk_mb=0.2,
    ),
)
ROWS: list[dict[str, Any]] = [
    {"layers": 2, "vision_layers": 2, "tiles": 1, "prompt_tokens": 512, "chunk": 256},
    {"layers": 8, "vision_layers": 2, "tiles": 4, "tiles_per_batch": 2, "prompt_tokens": 1536, "chunk": 512},
    {"layers": 3, "vision_layers": 3, "tiles": 5, "tiles_per_batch": 4, "policy": "int8", "kv": "float32"},
    {"layers": 4, "vision_layers": 6, "tiles": 4, "policy": "paper", "free_vision": False, "prompt_tokens": 1024},
]


def measured_on(device: Device, values: dict[str, Any]) -> MeasuredCase:
    """What a device would be measured at if it were exactly as described."""
    case = Case(preset=PRESET, generate=16, **values)
    shape = preset_shape(PRESET).cut_to(case.layers, case.vision_layers)
    counts = counts_of(shape, case, device.int16_passes)
    assert device.memory is not None
    moments = {one.stage: one for one in memory_over_time(shape, case, counts, device.memory, device.expands)}
    peaks = {stage: moment.total for stage, moment in moments.items()}
    loaded = peaks["load"] - moments["load"].parts["packing"]
    seconds = {one.stage: (one.total or 0.0,) for one in seconds_of(device, counts, case)}
    return MeasuredCase(case=case, seconds=seconds, peak_mb=peaks, rss_mb={"load": loaded, "free": peaks["free"]})


def test_a_fit_finds_the_constants_that_made_the_measurements() -> None:
    found = fit_device("again", [measured_on(KNOWN, row) for row in ROWS])
    assert found.memory is not None and KNOWN.memory is not None
    assert found.memory.model_dump() == pytest.approx(KNOWN.memory.model_dump(), rel=1e-6)
    assert found.speeds.model_dump() == pytest.approx(KNOWN.speeds.model_dump(), rel=1e-6)
    others = [measured_on(KNOWN, {**row, "prompt_tokens": 2048, "chunk": 128, "tiles": 7}) for row in ROWS]
    rows = compare(found, others)
    assert len(rows) == 4 * len(others) and max(abs(row.error) for row in rows) < 1e-6


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(UsageError, match="3 measured configurations are too few"):
        fit_device("x", [measured_on(KNOWN, row) for row in ROWS[:3]])


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=4, max_size=8), st.integers(0, 999))
def test_coefficients_are_the_best_that_are_not_negative(amounts: list[list[int]], seed: int) -> None:
    target = np.random.default_rng(seed).uniform(-5, 10, len(amounts))
    rows = [dict(zip("abc", map(float, row), strict=True)) for row in amounts]
    found = nonnegative(rows, list(target), scaled=False)
    matrix, solution = np.array(amounts, float), np.array([found[name] for name in "abc"])
    gradient = matrix.T @ (target - matrix @ solution)
    # Kuhn and Tucker: nothing is gained by raising any, nor by changing one that is above 0.
    assert (solution >= 0).all() and (gradient <= 1e-6 * (1 + np.abs(matrix).sum())).all()
    assert np.abs(gradient * solution).max() <= 1e-6 * (1 + np.abs(matrix).sum() * solution.max())


def test_times_are_evened_out_by_the_pace_of_their_moment(tmp_path: Path) -> None:
    line = {"case": {"preset": PRESET}, "peak_mb": {}, "rss_mb": {}}
    quick = {**line, "seconds": {"prefill": [2.0, 4.0]}, "pace": {"prefill": [0.1, 0.2]}}
    slow = {**line, "seconds": {"prefill": [8.0]}, "pace": {"prefill": [0.4]}}
    (tmp_path / "r.jsonl").write_text(json.dumps(quick) + "\n" + json.dumps(slow) + "\n", encoding="utf-8")
    first, second = read_measured(tmp_path / "r.jsonl")
    assert first.seconds["prefill"] == pytest.approx((4.0, 4.0)) and second.typical("prefill") == pytest.approx(4.0)


def test_broken_records_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"case": {}, "seconds": {}, "peak_mb": {}, "rss_mb": {}}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: the case names no preset"):
        read_measured(tmp_path / "r.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_measured(tmp_path / "gone.jsonl")


def test_described_devices_are_read_and_written_alike(tmp_path: Path) -> None:
    assert {"dimensity-9300", "snapdragon-8-gen-3"} <= set(device_names())
    for name in device_names():
        device = read_device(name)
        assert device.sources and (device.unknown or "all" in device.sources)
        write_device(tmp_path / "copy.yaml", device)
        assert read_device(str(tmp_path / "copy.yaml")) == device
    with pytest.raises(RecipeError, match=r"no recipe devices/nokia-3310\.yaml"):
        read_device("nokia-3310")


def test_freeing_the_tower_is_what_the_tower_holds() -> None:
    shape, memory = preset_shape(PRESET), KNOWN.memory
    assert memory is not None
    freed, kept = (Case(free_vision=flag) for flag in (True, False))
    with_it, without = (memory_over_time(shape, one, counts_of(shape, one), memory, True) for one in (kept, freed))
    parts = with_it[3].parts
    gone = parts["vision weights"] + parts["vision activations"] - memory.kept_mb
    assert with_it[3].total - without[3].total == pytest.approx(gone)
    assert peak_of(with_it).total > peak_of(without).total


def test_a_process_measures_one_configuration(tiny_onnx: Path) -> None:
    settings = {"folder": str(tiny_onnx), "tiles": 3, "batch": 2, "prompt": 40, "chunk": 16, "generate": 3}
    more = {"free_vision": True, "runs": 1, "threads": 1}
    command = [sys.executable, "-m", "stages.measure.estimate_probe", json.dumps({**settings, **more})]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert set(found["peak_mb"]) == {"start", "load", "encode", "free", "prefill", "decode"}
    assert {name: len(samples) for name, samples in found["seconds"].items()} == {
        "load": 1,
        "encode": 1,
        "prefill": 1,
        "decode": 1,
    }
    assert all(found["peak_mb"][stage] >= found["rss_mb"][stage] - 1 for stage in found["rss_mb"])
