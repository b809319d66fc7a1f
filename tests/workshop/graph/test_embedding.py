"""embedding.onnx: the rows of the table, whatever form it is stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.device.contract import int4_blocks, int8_channels, names
from stages.workshop.graph.embedding import emit_embedding
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.linear import Linear

IDS = np.array([[0, 96, 5, 5, 31]])


def rows_of(linear: Linear, folder: Path, open_graph: Any, half: bool = False) -> np.ndarray:
    with GraphEmitter(folder, names.EMBEDDING_FILE, "/model") as emitter:
        emit_embedding(emitter, linear, half=half)
        emitter.save()
    return open_graph(folder / names.EMBEDDING_FILE)({names.INPUT_IDS: IDS})[names.INPUTS_EMBEDS]


@pytest.mark.parametrize("hidden", [64, 40, 8, 300])
@pytest.mark.parametrize("form", ["float32", "float16", "int8", "int4 of 16", "int4 of 32", "int4 of 128"])
def test_rows_equal_the_dequantized_table(form: str, hidden: int, tmp_path: Path, open_graph: Any) -> None:
    """Also where the width is no multiple of a block: the padding must not come out."""
    table = np.random.default_rng(0).standard_normal((97, hidden)).astype(np.float32)
    kind, _, block = form.partition(" of ")
    linear = Linear(table)
    if kind == "int8":
        linear = Linear(int8_channels.quantize(table))
    elif kind == "int4":
        linear = Linear(int4_blocks.quantize(table, int(block)))
    found = rows_of(linear, tmp_path, open_graph, half=kind == "float16")
    expected = table.astype(np.float16).astype(np.float32) if kind == "float16" else linear.dequantized()
    np.testing.assert_array_equal(found, expected[IDS])
