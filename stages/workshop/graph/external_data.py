"""Weights beside the graph: one `.data` file per graph, streamed so that only one weight is in memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

# A page, so that the runtime can map large weights into memory instead of reading them; a cache line for small ones.
PAGE, LINE = 4096, 64
LARGE_BYTES = 1 << 20


class ExternalData:
    """Appends tensors to one file and hands back initializers that point into it.

    The file's name is the graph's plus `.data`, a bare name: nothing in it can lead out of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb")

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, name: str, array: NDArray[Any]) -> TensorProto:
        """Writes an array and returns the initializer of that name, type and shape."""
        payload = np.ascontiguousarray(array)
        self._pad(PAGE if payload.nbytes >= LARGE_BYTES else LINE)
        offset = self._stream.tell()
        payload.tofile(self._stream)
        tensor = TensorProto(
            name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(payload.dtype), dims=payload.shape
        )
        tensor.raw_data = b""  # set_external_data refuses a tensor without the field; cleared below
        set_external_data(tensor, location=self.path.name, offset=offset, length=payload.nbytes)
        tensor.ClearField("raw_data")
        return tensor

    def flush(self) -> None:
        """Makes what was appended visible to readers of the file."""
        self._stream.flush()

    def _pad(self, boundary: int) -> None:
        self._stream.write(b"\0" * (-self._stream.tell() % boundary))
