"""Worker: the same tower and connector in OpenVINO, from their ONNX export, uint8 tiles to image tokens.

    python openvino_vit.py FOLDER TILES THREADS
    python openvino_vit.py FOLDER                   only quantizes, into FOLDER/ptq.xml, which takes a while

Cases: "int8 ptq" (NNCF's post-training quantization, calibrated on other tiles of the same kind), "float32",
"bfloat16". Normalizing is part of the compiled model, by OpenVINO's own preprocessing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker import answers, serve, timed

stream = answers()

import nncf  # noqa: E402
import numpy as np  # noqa: E402
import openvino  # noqa: E402

CALIBRATION = 4
# What is not quantized is OpenVINO's own choice in "int8 ptq": bfloat16 where the machine has it.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def quantized(core: Any, folder: Path) -> Any:
    """NNCF's model, made once; `tiles.npy` has calibration tiles at its end."""
    file = folder / "ptq.xml"
    if not file.is_file():
        pixels = (np.load(folder / "tiles.npy")[-CALIBRATION:].astype(np.float32) / 255 - 0.5) / 0.5
        data = nncf.Dataset([pixels[index : index + 1] for index in range(CALIBRATION)])
        model = nncf.quantize(core.read_model(folder / "vit.onnx"), data, model_type=nncf.ModelType.TRANSFORMER)
        openvino.save_model(model, folder / "ptq.partial.xml", compress_to_fp16=False)
        (folder / "ptq.partial.bin").rename(folder / "ptq.bin")
        (folder / "ptq.partial.xml").rename(file)
    return core.read_model(file)


def from_bytes(model: Any) -> Any:
    """The model on uint8 tiles."""
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NCHW"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    chain = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    chain.mean([127.5] * 3).scale([127.5] * 3)
    return steps.build()


def main() -> None:
    core = openvino.Core()
    if len(sys.argv) == 2:
        quantized(core, Path(sys.argv[1]))
        return
    folder, count, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tiles = np.load(folder / "tiles.npy")[:count]
    requests: dict[str, Any] = {}

    def request(case: str) -> Any:
        if case not in requests:
            model = quantized(core, folder) if case == "int8 ptq" else core.read_model(folder / "vit.onnx")
            options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
            if case in PRECISIONS:
                options["INFERENCE_PRECISION_HINT"] = PRECISIONS[case]
            requests[case] = core.compile_model(from_bytes(model), "CPU", options).create_infer_request()
        return requests[case]

    def encode(case: str) -> dict[str, float]:
        one = request(case)
        return timed(lambda: one.infer({0: tiles}))

    def features(case: str) -> dict[str, Any]:
        one = request(case)
        one.infer({0: tiles})
        tower, tokens = (one.get_output_tensor(index).data.copy() for index in (0, 1))
        file = folder / f"openvino-{case.replace(' ', '-')}.npz"
        np.savez(file, vit_features=tower, image_features=tokens)
        return {"file": str(file)}

    serve(stream, ("openvino", "nncf"), {"vit": encode, "features": features})


if __name__ == "__main__":
    main()
