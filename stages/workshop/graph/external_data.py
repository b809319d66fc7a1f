"""Weights beside the graph: one `.data` file per graph, streamed so that only one weight is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from stages.device.contract.tensor_ref import Dtype, MappedFile, TensorRef

# A page, so that the runtime can map large weights into memory instead of reading them; a cache line for small ones.
PAGE, LINE = 4096, 64
LARGE_BYTES = 1 << 20


class ExternalData:
    """Appends tensors to one file and tells where each one lies.

    The file's name is the graph's plus `.data`, a bare name: nothing in it can lead out of the folder. It is made with
    the first tensor: a graph may have none of its own.

    Args:
        path: the file.
        shared: tensors of finished files beside it. What equals one of them byte for byte is not written again.
    """

    def __init__(self, path: Path, shared: Sequence[TensorRef] = ()) -> None:
        self.path = path
        self._shared = shared
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, array: NDArray[Any]) -> TensorRef:
        """Writes an array, unless it is there already, and returns where it lies."""
        payload = np.ascontiguousarray(array)
        return self._found(payload) or self._written(payload)

    def flush(self) -> None:
        """Makes what was appended visible to readers of the file."""
        if self._stream is not None:
            self._stream.flush()

    def _found(self, payload: NDArray[Any]) -> TensorRef | None:
        for ref in self._shared:
            if (ref.nbytes, ref.dtype) == (payload.nbytes, payload.dtype.name):
                here = ref.model_copy(update={"shape": payload.shape})
                if np.array_equal(MappedFile(self.path.with_name(ref.file)).array(here), payload):
                    return here
        return None

    def _written(self, payload: NDArray[Any]) -> TensorRef:
        if self._stream is None:
            self._stream = self.path.open("wb")
        boundary = PAGE if payload.nbytes >= LARGE_BYTES else LINE
        self._stream.write(b"\0" * (-self._stream.tell() % boundary))
        offset = self._stream.tell()
        payload.tofile(self._stream)
        dtype = cast(Dtype, payload.dtype.name)
        return TensorRef(file=self.path.name, offset=offset, shape=payload.shape, dtype=dtype)


def initializer(name: str, ref: TensorRef) -> TensorProto:
    """The initializer of that name whose bytes lie there."""
    data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(ref.dtype))
    tensor = TensorProto(name=name, data_type=data_type, dims=ref.shape)
    tensor.raw_data = b""  # set_external_data refuses a tensor without the field; cleared below
    set_external_data(tensor, location=ref.file, offset=ref.offset, length=ref.nbytes)
    tensor.ClearField("raw_data")
    return tensor
