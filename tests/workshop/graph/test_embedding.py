"""embedding.onnx: the rows of the table, whatever form it is stored in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels, names
from stages.device.contract.device_config import EmbeddingSpec
from stages.device.runtime.embedder import Embedder
from stages.workshop.graph.embedding import emit_embedding
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import emit_linear

IDS = np.array([[0, 96, 5, 5, 31]])


def written(linear: Linear, folder: Path, half: bool = False) -> EmbeddingSpec:
    with GraphEmitter(folder, names.EMBEDDING_FILE, "/model") as emitter:
        spec = emit_embedding(emitter, linear, half=half)
        emitter.save()
    return spec


def in_form(table: np.ndarray, form: str) -> Linear:
    kind, _, block = form.partition(" of ")
    if kind == "int8":
        return Linear(int8_channels.quantize(table))
    return Linear(int4_blocks.quantize(table, int(block)) if kind == "int4" else table)


@pytest.mark.parametrize("hidden", [64, 40, 8, 300])
@pytest.mark.parametrize("form", ["float32", "float16", "int8", "int4 of 16", "int4 of 32", "int4 of 128"])
def test_rows_equal_the_dequantized_table(form: str, hidden: int, tmp_path: Path, open_graph: Any) -> None:
    """Through the graph and without it; also where the width is no multiple of a block."""
    table = np.random.default_rng(0).standard_normal((97, hidden)).astype(np.float32)
    linear, half = in_form(table, form), form == "float16"
    spec = written(linear, tmp_path, half)
    assert spec.form == form.partition(" of ")[0]
    assert spec.holds(97, hidden) and not spec.holds(98, hidden)
    expected = table.astype(np.float16).astype(np.float32) if half else linear.dequantized()
    found = open_graph(tmp_path / names.EMBEDDING_FILE)({names.INPUT_IDS: IDS})[names.INPUTS_EMBEDS]
    np.testing.assert_array_equal(found, expected[IDS])
    rows = Embedder(tmp_path, spec, hidden)(IDS[0].tolist())
    assert rows.flags.writeable  # image features are put into them
    assert rows.tobytes() == found.tobytes()


@pytest.mark.parametrize(
    ("form", "activations"),
    [("int8", "float"), ("int8", "int8"), ("int8", "int16"), ("int4 of 32", "int8"), ("int4 of 128", "int16")],
)
def test_a_tied_table_is_on_disk_once(form: str, activations: Any, tmp_path: Path, open_graph: Any) -> None:
    table = np.random.default_rng(0).standard_normal((97, 300)).astype(np.float32)
    linear = replace(in_form(table, form), activations=activations)
    with GraphEmitter(tmp_path, names.DECODER_FILE, "/model") as head:
        x = head.input("x", FLOAT, [1, 1, 300])
        head.output("y", FLOAT, [1, 1, 97])
        emit_linear(head, x, linear, "lm_head", "y", one_token=True)
        head.save()
    with GraphEmitter(tmp_path, names.EMBEDDING_FILE, "/model", list(head.refs.values())) as emitter:
        spec = emit_embedding(emitter, linear)
        emitter.save()
    assert spec.values.file == f"{names.DECODER_FILE}.data"
    assert spec.scales is not None and spec.scales.file == spec.values.file
    assert not (tmp_path / f"{names.EMBEDDING_FILE}.data").exists()
    found = open_graph(tmp_path / names.EMBEDDING_FILE)({names.INPUT_IDS: IDS})[names.INPUTS_EMBEDS]
    np.testing.assert_array_equal(found, linear.dequantized()[IDS])
    np.testing.assert_array_equal(Embedder(tmp_path, spec, 300)(IDS[0].tolist()), found[0])


def test_another_table_of_the_same_size_is_written(tmp_path: Path) -> None:
    tables = [np.random.default_rng(seed).standard_normal((97, 64)).astype(np.float32) for seed in (0, 1)]
    with GraphEmitter(tmp_path, names.DECODER_FILE, "/model") as head:
        head.weight("w", tables[0])
    with GraphEmitter(tmp_path, names.EMBEDDING_FILE, "/model", list(head.refs.values())) as emitter:
        spec = emit_embedding(emitter, Linear(tables[1]))
        emitter.save()
    assert spec.values.file == f"{names.EMBEDDING_FILE}.data"
    np.testing.assert_array_equal(Embedder(tmp_path, spec, 64)([0, 96]), tables[1][[0, 96]])


@pytest.mark.parametrize("token", [-1, 97])
def test_a_token_without_a_row_is_named(token: int, tmp_path: Path) -> None:
    embedder = Embedder(tmp_path, written(Linear(np.ones((97, 64), np.float32)), tmp_path), 64)
    with pytest.raises(ModelError, match=f"token {token} has no row in the embedding table, which has 97"):
        embedder([3, token])


def test_a_file_that_was_cut_while_in_use_is_told(tmp_path: Path) -> None:
    spec = written(Linear(np.ones((97, 64), np.float32)), tmp_path)
    embedder = Embedder(tmp_path, spec, 64)
    os.truncate(tmp_path / spec.values.file, spec.values.offset + 100)
    with pytest.raises(ModelError, match="ends before the row 96 of the embedding table"):
        embedder([96])
