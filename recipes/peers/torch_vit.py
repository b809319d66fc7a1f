"""Worker: the same tower and connector in transformers on torch, uint8 tiles to image tokens.

python torch_vit.py FOLDER LAYERS TILES THREADS         cases: float32, bfloat16; features also of rounded (weights)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker import answers, serve, timed

stream = answers()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from vit_model import BothFeatures, vit_model  # noqa: E402


def main() -> None:
    folder, (layers, count, threads) = Path(sys.argv[1]), map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    tiles = torch.from_numpy(np.load(folder / "tiles.npy")[:count])
    models: dict[str, Any] = {}

    def model(case: str) -> Any:
        if case not in models:
            made = vit_model(layers)
            weights = "rounded.safetensors" if case == "rounded" else "vit.safetensors"
            made.load_state_dict(load_file(folder / weights), strict=False)
            models[case] = BothFeatures(made.bfloat16() if case == "bfloat16" else made)
        return models[case]

    def run(case: str) -> tuple[torch.Tensor, torch.Tensor]:
        one = model(case)
        with torch.inference_mode():
            pixels = (tiles.float() / 255 - 0.5) / 0.5
            return one(pixels.bfloat16() if case == "bfloat16" else pixels)

    def encode(case: str) -> dict[str, float]:
        model(case)
        return timed(lambda: run(case))

    def features(case: str) -> dict[str, Any]:
        tower, tokens = (part.float().numpy() for part in run(case))
        file = folder / f"torch-{case}.npz"
        np.savez(file, vit_features=tower, image_features=tokens)
        return {"file": str(file)}

    serve(stream, ("torch", "transformers"), {"vit": encode, "features": features})


if __name__ == "__main__":
    main()
