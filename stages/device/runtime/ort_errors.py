"""What onnxruntime raises: its exceptions share no base class but Exception."""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(ort_state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "NoSuchFile",
        "NoModel",
        "EngineError",
        "RuntimeException",
        "InvalidProtobuf",
        "NotImplemented",
        "InvalidGraph",
        "EPFail",
    )
    if hasattr(ort_state, name)
)
