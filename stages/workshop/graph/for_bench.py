"""Writes what a bench runs on: a program of its own, so that building a model does not count as memory of running it.

python -m stages.workshop.graph.for_bench random '{"preset": "tiny", …}' FOLDER
python -m stages.workshop.graph.for_bench ceilings '{"columns": 2304, "outputs": 5760}' FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(what: str, settings: str, folder: str) -> None:
    """Writes into an existing folder.

    Args:
        what: "random" or "ceilings".
        settings: of it, as JSON.
        folder: where to write.
    """
    write = _random if what == "random" else _ceilings
    write(Path(folder), **json.loads(settings))


def _random(
    folder: Path,
    preset: str,
    layers: int | None = None,
    vision_layers: int | None = None,
    kv: str | None = None,
    policy: str | None = None,
    seed: int = 0,
) -> None:
    """`layers` is at most how many each of language model and tower keeps; `vision_layers` decides for the tower."""
    from stages.workshop.graph.random_model import write_random_model
    from stages.workshop.model.presets import model_preset

    tower = model_preset(preset).vision_layers
    more: dict[str, Any] = {} if policy is None else {"policy": policy}
    for _ in write_random_model(
        preset,
        folder,
        layers=layers,
        vision_layers=vision_layers or min(layers or tower, tower),
        int8_kv=kv != "float32",
        seed=seed,
        **more,
    ):
        pass


def _ceilings(folder: Path, columns: int, outputs: int) -> None:
    from stages.workshop.graph.ceilings import write_ceilings

    write_ceilings(folder, columns, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
