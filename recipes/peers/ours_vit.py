"""Worker: our image encoder, tiles to image tokens.

python ours_vit.py FOLDER TILES THREADS         cases: int8, int16 (precision of activations)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker import answers, serve, timed

stream = answers()

import numpy as np  # noqa: E402

from stages.device.contract.device_config import read_device_config  # noqa: E402
from stages.device.runtime.encoder import ImageEncoder  # noqa: E402


def main() -> None:
    folder, count, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tiles = np.load(folder / "tiles.npy")[:count]
    encoders: dict[str, ImageEncoder] = {}

    def encoder(case: str) -> ImageEncoder:
        if case not in encoders:
            place = folder / case
            encoders[case] = ImageEncoder(place, read_device_config(place), threads, batch=count)
            encoders[case].load()
        return encoders[case]

    def encode(case: str) -> dict[str, float]:
        one = encoder(case)
        return timed(lambda: list(one.encode([tiles])))

    def features(case: str) -> dict[str, Any]:
        found = [next(iter(encoder(case).encode([tiles], kind))).values for kind in ("vit_features", "image_features")]
        file = folder / f"ours-{case}.npz"
        np.savez(file, vit_features=found[0], image_features=found[1])
        return {"file": str(file)}

    serve(stream, ("onnxruntime", "numpy"), {"vit": encode, "features": features})


if __name__ == "__main__":
    main()
