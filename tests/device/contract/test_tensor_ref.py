"""Where a tensor lies, as files from elsewhere may have it: no shape that a later step would stumble over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.artifacts.errors import ModelError
from stages.device.contract.prefill_layout import PREFILL_FILE, PrefillLinear, read_prefill_layout
from stages.device.contract.tensor_ref import MappedFile, TensorRef


def ref(**changes: Any) -> TensorRef:
    return TensorRef(**{"file": "w.data", "offset": 0, "shape": (2, 3), "dtype": "float32"} | changes)


@pytest.mark.parametrize("shape", [(), (1,), (2**63 - 1,), (1,) * 8])
def test_every_shape_that_numpy_has_is_one(shape: tuple[int, ...]) -> None:
    assert ref(shape=shape).shape == shape


@pytest.mark.parametrize("shape", [(0,), (0, 10**7, 10**7), (-1, -1), (2**63,), (1,) * 9, (10**30, 1)])
def test_every_other_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="is no shape"):
        ref(shape=shape)


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 2), ("float16", 1), ("int64", 12)])
def test_an_offset_between_two_items_is_refused(dtype: str, offset: int) -> None:
    assert ref(dtype=dtype, offset=8).offset == 8
    with pytest.raises(ValidationError, match=f"no {dtype} begins at byte {offset}"):
        ref(dtype=dtype, offset=offset)


@pytest.mark.parametrize("offset", [-4, 2**63])
def test_an_offset_that_no_file_has_is_refused(offset: int) -> None:
    with pytest.raises(ValidationError, match="offset"):
        ref(offset=offset)


def test_the_largest_shape_is_held_against_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(b"\0" * 64)
    with pytest.raises(ModelError, match=r"w\.data has 64 bytes"):
        MappedFile(tmp_path / "w.data").array(ref(shape=(2**63 - 1,) * 8))


@pytest.mark.parametrize("values", [[0, 10**7, 10**7], [4, 0, 16], [4, 10**30, 16]])
def test_a_layout_with_a_weight_of_no_size_is_refused(values: list[int], tmp_path: Path) -> None:
    """Expanded it would be a buffer of columns × rows, of which the file need not hold a byte."""

    def place(dtype: str, shape: list[int]) -> str:
        return f'{{"file":"w.data","offset":0,"shape":{shape},"dtype":"{dtype}"}}'

    rows, blocks, _ = values
    linear = (
        f'{{"values":{place("uint8", values)},"channel":{place("float32", [rows])},'
        f'"steps":{place("int8", [blocks, rows])}}}'
    )
    with pytest.raises(ValidationError, match="is no shape"):
        PrefillLinear.model_validate_json(linear)
    layer = f'{{"graph":"prefill-0.onnx","linears":{{"qkv":{linear}}},"norms":{{}}}}'
    (tmp_path / PREFILL_FILE).write_text(f'{{"schema_version":1,"layers":[{layer}]}}')
    with pytest.raises(ModelError, match=r"prefill\.json: .*is no shape") as caught:
        read_prefill_layout(tmp_path, 1)
    assert "bluelm export" in str(caught.value.fix)
