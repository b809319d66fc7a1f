"""The machine's ceilings: that the products are products, and what is told of several moments; never how fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from stages.artifacts.errors import ModelError
from stages.measure.ceilings import BareProduct, Ceilings, ceiling_process, summarise_ceilings
from stages.measure.workshop_process import write_by_workshop
from stages.workshop.graph.ceilings import ZERO_POINT, write_ceilings


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ceilings")
    write_ceilings(folder, columns=64, outputs=48)
    return folder


@pytest.mark.parametrize("form", ["int8", "float32"])
def test_the_bare_products_are_numpys(graphs: Path, form: str) -> None:
    bare = BareProduct(graphs / f"{form}.onnx", threads=1, rows=5)
    assert bare.rate() > 0 and bare.operations == 2 * 5 * 64 * 48
    model = onnx.load(graphs / f"{form}.onnx")
    weight = next(onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "weight")
    if form == "int8":
        wanted = (bare.rows.astype(np.int64) - ZERO_POINT) @ weight.astype(np.int64)
        assert np.array_equal(bare.product, wanted)
    else:
        np.testing.assert_allclose(bare.product, bare.rows @ weight, rtol=1e-4, atol=1e-4)


def test_moments_are_summed_up() -> None:
    moments = [Ceilings(30.0, 700.0, 200.0), Ceilings(34.0, 500.0, 210.0), Ceilings(10.0, 690.0, 100.0)]
    found = summarise_ceilings(moments)
    assert {name: (one.best, one.median) for name, one in found.items()} == {
        "read_gb_s": (34.0, 30.0),
        "int8_gop_s": (700.0, 690.0),
        "float32_gop_s": (210.0, 200.0),
    }


def test_the_process_answers_each_time_and_ends(graphs: Path) -> None:
    with ceiling_process(1, graphs, array_bytes=1 << 16) as measure:
        first, second = measure(), measure()
    assert min(*vars(first).values(), *vars(second).values()) > 0
    with pytest.raises(ModelError, match="ended"):
        measure()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Graphs could not be written: .*nowhere"):
        write_by_workshop("ceilings", {"columns": 8, "outputs": 8}, tmp_path / "nowhere", "Graphs")
