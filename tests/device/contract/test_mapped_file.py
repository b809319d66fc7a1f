"""Tensors in a mapped file: read where they lie, let go of, read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.errors import ModelError
from stages.device.contract.tensor_ref import MappedFile, TensorRef


def test_tensors_are_the_same_after_their_pages_went(tmp_path: Path) -> None:
    values = np.arange(3_000_000, dtype=np.int32)
    (tmp_path / "w.data").write_bytes(b"\0" * 64 + values.tobytes())
    file = MappedFile(tmp_path / "w.data")
    ref = TensorRef(file="w.data", offset=64, shape=(3000, 1000), dtype="int32")
    for release in (lambda: file.release(ref), file.release_all):
        np.testing.assert_array_equal(file.array(ref), values.reshape(3000, 1000))
        release()
    np.testing.assert_array_equal(file.array(ref), values.reshape(3000, 1000))


def test_a_file_that_is_cut_short_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(b"\0" * 10)
    with pytest.raises(ModelError, match=r"w\.data has 10 bytes; a weight lies at 4 to 12"):
        MappedFile(tmp_path / "w.data").array(TensorRef(file="w.data", offset=4, shape=(2,), dtype="float32"))
    (tmp_path / "w.data").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be read"):
        MappedFile(tmp_path / "w.data")
