"""Worker: our decoder, through the runtime that chat uses.

python ours_decoder.py FOLDER PROMPT GENERATE THREADS CHUNK        (CHUNK 0: the runtime's own)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker import answers, serve, timed

stream = answers()

import numpy as np  # noqa: E402

from stages.device.contract.device_config import read_device_config  # noqa: E402
from stages.device.runtime.language import load_language  # noqa: E402
from stages.device.runtime.sampling import greedy  # noqa: E402
from stages.device.runtime.session_cache import SessionCache  # noqa: E402


def main() -> None:
    folder = Path(sys.argv[1])
    prompt, generate, threads, chunk = map(int, sys.argv[2:6])
    cache = SessionCache(Path(sys.argv[6])) if sys.argv[6] else None
    config = read_device_config(folder)
    sizes = {"chunk": chunk} if chunk else {}
    room = prompt + generate
    context = load_language(folder, config, threads=threads, capacity=room, cache=cache, **sizes).context
    decoder, embedder = context.decoder, context.embedder
    ids = np.random.default_rng(0).integers(0, config.decoder.vocab_size, prompt).tolist()
    last: list[Any] = []

    def read() -> None:
        decoder.truncate(0)
        last[:] = [decoder.prefill(embedder(ids), *sizes.values())]

    def write() -> None:
        logits = last[0]
        for _ in range(generate):
            logits = decoder.step(embedder([greedy(logits)]))

    def decode(_: str) -> dict[str, float]:
        if not last:
            read()
        decoder.truncate(prompt)
        return timed(write)

    serve(stream, ("onnxruntime", "numpy"), {"prefill": lambda _: timed(read), "decode": decode})


if __name__ == "__main__":
    main()
