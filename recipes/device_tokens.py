"""What an exported model answers on this processor, number by number, for comparing with another.

    python recipes/device_tokens.py recipes/demo PICTURE... --question "What shape is it?" --out here.npz
    build/arm64/python recipes/device_tokens.py recipes/demo PICTURE... --question "What shape is it?" --out arm.npz

For every picture and question the file holds the greedy tokens, the logits after the prompt, and the picture's
features. Runs wherever `bluelm chat` runs: onnxruntime, numpy, tokenizers, Pillow, jinja2; no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.folder import open_artifact
from stages.device.runtime.context import PictureSlot, TokenPrompt
from stages.device.runtime.engine import Engine, EngineOptions


def main() -> None:
    """Reads the command line, asks, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--question", action="append", required=True)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = open_artifact(options.model, "onnx").path
    engine = Engine(folder, EngineOptions(threads=options.threads, cache=False, keep_vision=True))
    found: dict[str, Any] = {}
    try:
        for index, picture in enumerate(options.pictures):
            features = engine.album.add(picture).result()
            found[f"features-{index}"] = features.features
            for number, question in enumerate(options.question):
                tokens, logits = _ask(engine, features, question, options.tokens)
                found[f"tokens-{index}-{number}"], found[f"logits-{index}-{number}"] = tokens, logits
                print(f"{picture.name}: {question} {engine.prompt.decode(tokens.tolist())!r}", flush=True)  # noqa: T201
    finally:
        engine.close()
    np.savez(options.out, **found)


def _ask(engine: Engine, picture: Any, question: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy tokens, the ending one included, and the logits [V] after the prompt."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    encoded = engine.prompt.encode([{"role": "user", "content": content}], [picture.tokens], add_generation_prompt=True)
    slots = [PictureSlot(picture.digest, picture.features)]
    context = engine.language.context
    logits = first = context.read(TokenPrompt(encoded.ids, engine.prompt.image_token_id, slots)).logits
    tokens = [int(logits.argmax())]
    while len(tokens) < limit and tokens[-1] not in engine.config.prompt.eos_token_ids:
        logits = context.feed(tokens[-1])
        tokens.append(int(logits.argmax()))
    return np.array(tokens), np.array(first)


if __name__ == "__main__":
    main()
