"""Profiles: cut into runs, summed, and read from files that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.artifacts.errors import ModelError
from stages.artifacts.events import Finished
from stages.device.contract.device_config import read_device_config
from stages.measure.operators import PartTime, profile_operators, second_half, split_text
from stages.measure.profile import NodeRun, Profile, profile_of, read_profile, read_profiles, role_of, sum_operators
from stages.measure.random_models import BenchModel
from stages.measure.workload import Workload


def kernel(name: str, op: str, start: float, duration: float, **more: Any) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": {"op_name": op}, **more}


def span(start: float, duration: float) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": duration, "args": {}}


EVENTS = [
    {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 9, "args": {}},
    kernel("/m/folded/Cast", "Cast", 5, 2),
    kernel("/m/fc1/MatMul", "MatMul", 20, 50),
    kernel("/m/act/Gelu", "Gelu", 71, 10),
    span(18, 70),
    kernel("/m/act/Gelu", "Gelu", 160, 20),
    kernel("/m/fc1/MatMul", "MatMul", 101, 40),
    span(100, 90),
]
STRANGE = [None, 3, "x", [], {}, {"name": "model_run"}, {"name": "x_kernel_time", "ts": 1, "dur": "long", "args": {}}]
STRANGE += [{"name": "y_kernel_time", "ts": 30, "dur": 1}, {"name": "z_kernel_time", "ts": 30, "dur": 1, "args": {}}]


def test_runs_hold_their_nodes_in_order() -> None:
    profile = profile_of(EVENTS)
    assert [[(node.op, round(node.seconds * 1e6)) for node in run] for run in profile.runs] == [
        [("MatMul", 50), ("Gelu", 10)],
        [("MatMul", 40), ("Gelu", 20)],
    ]
    assert profile_of([*STRANGE, *EVENTS, *STRANGE]) == profile
    times = sum_operators(profile.runs)
    assert [(time.role, time.op, time.calls) for time in times] == [
        ("products", "MatMul", 2),
        ("activations", "Gelu", 2),
    ]
    assert [time.seconds for time in times] == pytest.approx([90e-6, 30e-6])


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_file_cut_short_gives_what_is_whole(tmp_path: Path, cut: int) -> None:
    whole = tmp_path / "decoder_2026-11-21_13-57-57_235.json"
    whole.write_text("[\n" + ",\n".join(json.dumps(event) for event in EVENTS) + "\n]\n", encoding="utf-8")
    assert read_profiles(tmp_path) == {"decoder": profile_of(EVENTS)}
    text = whole.read_text(encoding="utf-8")
    # Without the closing bracket, or within the last event, which is the second run's span.
    whole.write_text(text[: len(text) - 1 - cut], encoding="utf-8")
    assert len(read_profile(whole).runs) == (1 if cut == 30 else 2)
    for content in ("", "{}", "[", "3", "\x00\xff"):
        whole.write_text(content, encoding="utf-8")
        assert read_profile(whole) == Profile(())


def test_no_profile_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wrote no profile"):
        read_profiles(tmp_path)


@pytest.mark.parametrize(
    ("name", "op", "role"),
    [
        ("/m/q/MatMulNBits", "MatMulNBits", "products"),
        ("/m/attn/GroupQueryAttention", "GroupQueryAttention", "attention"),
        ("/v/layers.0/attn/logits/MatMulIntegerToFloat", "MatMulIntegerToFloat", "attention"),
        ("/v/layers.0/attn/q_proj/MatMulIntegerToFloat", "MatMulIntegerToFloat", "products"),
        ("/m/q/input/high/Sub", "Sub", "rounding"),
        ("/m/q/parts/Add", "Add", "rounding"),
        ("/m/q/Mul", "Mul", "rounding"),
        ("/m/mlp/Mul", "Mul", "elementwise"),
        ("/m/q/input/scale/ReduceMax", "ReduceMax", "rounding"),
        ("/m/norm/SkipLayerNormalization", "SkipLayerNormalization", "norms"),
        ("ReorderOutput", "ReorderOutput", "copies"),
        ("MemcpyToHost_1", "MemcpyToHost", "copies"),
        ("/m/new/Wonder", "Wonder", "other"),
    ],
)
def test_roles(name: str, op: str, role: str) -> None:
    assert role_of(NodeRun(name, op, 0, 1), {"/m/q"}) == role


def test_a_scale_behind_a_product_belongs_to_rounding() -> None:
    nodes = [("/m/q/high/MatMulIntegerToFloat", "MatMulIntegerToFloat"), ("/m/q/Mul", "Mul"), ("/m/mlp/Mul", "Mul")]
    times = sum_operators([[NodeRun(name, op, 0, 1) for name, op in nodes]])
    assert [(time.role, time.op) for time in times] == [
        ("elementwise", "Mul"),
        ("products", "MatMulIntegerToFloat"),
        ("rounding", "Mul"),
    ]


def test_shares_add_up_to_the_whole() -> None:
    profile = profile_of(EVENTS)
    part = PartTime("encode", 200e-6, tuple(sum_operators(profile.runs)))
    assert part.outside == pytest.approx(80e-6)
    assert sum(row["share"] for row in part.rows()) == pytest.approx(1)
    assert part.roles() == pytest.approx({"products": 0.45, "outside": 0.4, "activations": 0.15})
    # Parts that overlap leave nothing outside.
    assert PartTime("encode", 100e-6, part.operators).outside == 0


def test_prefill_and_decode_are_told_apart() -> None:
    def runs(name: str, count: int) -> Profile:
        return Profile(tuple((NodeRun(f"{name}{index}", "MatMul", index, 1),) for index in range(count)))

    # Twice: 2 chunks and 3 tokens in the decoder, 4 runs of a layer.
    reads, writes = split_text({"decoder": runs("d", 10), "prefill-0": runs("p", 8)}, generate=3)
    assert [run[0].name for run in reads] == ["d5", "d6", "p4", "p5", "p6", "p7"]
    assert [run[0].name for run in writes] == ["d7", "d8", "d9"]
    assert second_half((1, 2, 3, 4)) == (3, 4)  # type: ignore[comparison-overlap,arg-type]


def test_a_real_model_is_profiled(tiny_onnx: Path) -> None:
    """As many calls as the graphs have nodes and the work has runs."""
    config = read_device_config(tiny_onnx)
    work = Workload(chunks=(16,), batches=(2,), prompts=(40,), generate=3, warmup=1, runs=1, threads=1)
    tiles = np.zeros((4, 3, 112, 112), np.uint8)
    *_, last = profile_operators(BenchModel(tiny_onnx, config, None), work, tiles)
    assert isinstance(last, Finished)
    encode, prefill, decode = last.result
    calls = {(part.part, one.op): one.calls for part in last.result for one in part.operators}
    assert calls["encode", "Conv"] == 2  # two batches of tiles
    assert calls["decode", "GroupQueryAttention"] == 3  # one layer, three tokens
    assert calls["prefill", "GroupQueryAttention"] >= 1
    assert encode.seconds > 0 and prefill.seconds > 0 and {one.role for one in decode.operators} >= {"products"}
