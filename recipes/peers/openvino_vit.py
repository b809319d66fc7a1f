"""Worker: the same tower and connector in OpenVINO, from their ONNX export.

    python openvino_vit.py FOLDER TILES THREADS

Cases: "int8 ptq" (NNCF's post-training quantization, calibrated on other tiles of the same kind), "float32",
"bfloat16".
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


def main() -> None:
    folder, count, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tiles = np.load(folder / "tiles.npy")
    pixels = (tiles.astype(np.float32) / 255 - 0.5) / 0.5
    core = openvino.Core()
    requests: dict[str, Any] = {}

    def request(case: str) -> Any:
        if case not in requests:
            model = core.read_model(folder / "vit.onnx")
            if case == "int8 ptq":
                others = [pixels[index : index + 1] for index in range(len(pixels) - CALIBRATION, len(pixels))]
                model = nncf.quantize(model, nncf.Dataset(others), model_type=nncf.ModelType.TRANSFORMER)
            options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
            if case in PRECISIONS:
                options["INFERENCE_PRECISION_HINT"] = PRECISIONS[case]
            requests[case] = core.compile_model(model, "CPU", options).create_infer_request()
        return requests[case]

    def encode(case: str) -> dict[str, float]:
        one = request(case)
        return timed(lambda: one.infer({0: pixels[:count]}))

    def features(case: str) -> dict[str, Any]:
        one = request(case)
        one.infer({0: pixels[:count]})
        tower, tokens = (one.get_output_tensor(index).data.copy() for index in (0, 1))
        file = folder / f"openvino-{case.replace(' ', '-')}.npz"
        np.savez(file, vit_features=tower, image_features=tokens)
        return {"file": str(file)}

    serve(stream, ("openvino", "nncf"), {"vit": encode, "features": features})


if __name__ == "__main__":
    main()
