"""Bytes and operations of a decoder, against counts by hand from its shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.device.contract.device_config import read_device_config
from stages.measure.decoder_work import decoder_work
from stages.measure.graph_file import GraphFile, GraphNode, GraphWeight, read_graph_file
from stages.measure.model_account import account_of
from stages.measure.product_forms import describe_forms, fully_read, products_of
from stages.workshop.graph.random_model import write_random_model
from stages.workshop.quant.policy import Rule

# The tiny preset: width 128, MLP 256, 4 heads and 2 KV heads of 32, 512 words.
H, MLP, Q, KV, V = 128, 256, 128, 64, 512
LAYER = H * (Q + 2 * KV) + Q * H + 3 * H * MLP
BEHIND_ATTENTION = Q * H + 3 * H * MLP


def write(folder: Path, layers: int, **options: object) -> Path:
    folder.mkdir()
    for _ in write_random_model("tiny", folder, layers=layers, vision_layers=1, **options):  # type: ignore[arg-type]
        pass
    return folder


def test_a_float_model_is_four_bytes_a_weight(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", 3, rules=(), int8_kv=False)
    work = decoder_work(folder, read_device_config(folder).decoder)
    norms = (2 * 3 + 1) * H
    constants = sum(w.nbytes for w in read_graph_file(folder / "decoder.onnx").weights.values() if len(w.shape) < 1)
    assert work.weight_bytes == pytest.approx(4 * (3 * LAYER + V * H + norms), abs=constants + 64)
    assert work.kv_bytes == 3 * 2 * KV * 4
    # The last layer behind its attention, and the head, see the last position only.
    assert work.macs == 3 * LAYER - BEHIND_ATTENTION
    assert work.macs_once == BEHIND_ATTENTION + V * H
    assert work.operations(10) == 2 * (10 * work.macs + work.macs_once)
    assert work.bytes_per_token(7) == work.weight_bytes + 7 * work.kv_bytes


@pytest.mark.parametrize(("block", "policy"), [(32, "int8"), (64, "paper"), (128, "mix")])
def test_int4_is_half_a_byte_and_a_scale_a_block(tmp_path: Path, block: int, policy: str) -> None:
    rules = (Rule(modules="language_model.*", weights="int4", group_size=block),)
    folder = write(tmp_path / "m", 2, rules=rules, policy=policy)
    work = decoder_work(folder, read_device_config(folder).decoder)
    weights, norms = 2 * LAYER + V * H, 5 * H * 4
    assert work.weight_bytes == pytest.approx(weights / 2 + weights / block * 4 + norms, abs=256)
    assert work.kv_bytes == 2 * 2 * KV * 1


@pytest.mark.parametrize("layers", [1, 3])
def test_compact_prefill_reads_keys_and_values_of_the_last_layer(layers: int, tmp_path: Path) -> None:
    """40 positions: 39 through the layers and the last one's keys and values, one through the whole decoder."""
    folder = write(tmp_path / "m", layers)
    spec = read_device_config(folder).decoder
    by_hand = 39 * ((layers - 1) * LAYER + 2 * H * KV) + layers * LAYER + V * H
    assert (folder / "prefill.json").is_file()
    assert decoder_work(folder, spec).operations(40) == account_of(folder, spec).decoder.operations(40) == 2 * by_hand


def test_forms_are_told_by_policy(tmp_path: Path) -> None:
    seen = {}
    for policy in ("paper", "mix", "int8", "float"):
        folder = write(tmp_path / policy, 2, policy=policy)
        account = account_of(folder, read_device_config(folder).decoder)
        seen[policy] = (account.vision_forms, account.prefill_forms, account.decoder_forms)
    assert "a16" in seen["paper"][1] and "a8" not in seen["paper"][1]
    assert seen["mix"][1].startswith("5 a8") or "a8" in seen["mix"][1]
    assert "a16" not in seen["int8"][1]
    assert "nbits16 int4/128" in seen["paper"][2] and "nbits8 int4/128" in seen["int8"][2]
    assert "nbits int4/128" in seen["float"][2] and "8 " not in seen["float"][2].replace("128", "")


def node(op: str, name: str, *inputs: str, **integers: int) -> GraphNode:
    return GraphNode(op, name, inputs, (f"{name}/out",), integers)


def test_products_by_hand() -> None:
    """Two parts over one weight are one product; products of activations are none; tables are not read whole."""
    graph = GraphFile(
        (
            node("Gather", "/m/embed", "table", "ids"),
            node("MatMulIntegerToFloat", "/m/q/high", "x", "w8"),
            node("MatMulIntegerToFloat", "/m/q/low", "y", "w8"),
            node("MatMulIntegerToFloat", "/m/k", "x", "v8"),
            node("MatMul", "/m/scores", "/m/q/high/out", "/m/k/out"),
            node("Gather", "/m/last_position/Gather", "/m/scores/out", "index"),
            node("MatMul", "/m/head", "/m/last_position/Gather/out", "head"),
            node("MatMulNBits", "/m/side", "z", "n4", "s4", N=6, K=4, bits=4, block_size=32, accuracy_level=4),
            node("MatMulNBits", "/m/exact", "z", "n4b", N=6, K=4, bits=4, block_size=32),
            node("DequantizeLinear", "/m/npu/weight", "d8", "ds"),
            node("MatMul", "/m/npu", "x", "/m/npu/weight/out"),
        ),
        {
            "table": GraphWeight((1000, 10), 40000),
            "w8": GraphWeight((2, 3), 6),
            "v8": GraphWeight((5, 3), 15),
            "head": GraphWeight((10, 4), 160),
            "n4": GraphWeight((6, 1, 16), 96),
            "s4": GraphWeight((6, 1), 24),
            "d8": GraphWeight((4, 7), 28),
            "ds": GraphWeight((7,), 28),
            "unused": GraphWeight((1,), 4),
        },
    )
    found = {product.weight: (product.form, product.macs, product.once) for product in products_of(graph)}
    assert found == {
        "w8": ("a16", 6, False),
        "v8": ("a8", 15, False),
        "head": ("float", 40, True),
        "n4": ("nbits8 int4/32", 24, False),
        "n4b": ("nbits int4/32", 24, False),
        "d8": ("qdq", 28, False),
    }
    assert set(fully_read(graph)) == {"w8", "v8", "head", "n4", "s4", "d8", "ds"}
    assert describe_forms([graph, graph]).startswith("2 a16, 2 a8, 2 float")
