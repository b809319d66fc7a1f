"""What has been made of each block so far, in the draft: a run that was killed goes on with the next one.

00007.safetensors    packed weights, float tensors that folding changed, and `fold.N`, the scales that were folded
00007.json           what was measured; written last, so its presence says that the block is done
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.atomic_file import atomic_file, write_atomically

if TYPE_CHECKING:
    import torch

FOLD = "fold."


@dataclass
class DoneBlock:
    """A finished block.

    Attributes:
        tensors: by the checkpoint's names; packed ones with their suffix.
        folds: scales by the index of the fold point.
        measured: `Calibration.modules_state` of this block.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    folds: dict[int, torch.Tensor] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)


class BlockFiles:
    """The folder of finished blocks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def read(self, number: int) -> DoneBlock | None:
        """A finished block, or None."""
        from safetensors.torch import load_file

        if not self._json(number).is_file():
            return None
        held = load_file(self._weights(number))
        return DoneBlock(
            {name: tensor for name, tensor in held.items() if not name.startswith(FOLD)},
            {int(name.removeprefix(FOLD)): tensor for name, tensor in held.items() if name.startswith(FOLD)},
            json.loads(self._json(number).read_text(encoding="utf-8")),
        )

    def write(self, number: int, block: DoneBlock) -> None:
        """Keeps a finished block; after this a kill does not lose it."""
        from safetensors.torch import save_file

        folds = {f"{FOLD}{index}": scales for index, scales in block.folds.items()}
        with atomic_file(self._weights(number)) as part:
            save_file({name: held.contiguous() for name, held in (block.tensors | folds).items()}, part)
        write_atomically(self._json(number), json.dumps(block.measured))

    def tensors(self) -> Mapping[str, Path]:
        """Which file holds a finished tensor."""
        return dict(self._names())

    def _names(self) -> Iterator[tuple[str, Path]]:
        from safetensors import safe_open

        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                yield from ((name, path) for name in file.keys() if not name.startswith(FOLD))  # noqa: SIM118

    def _weights(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def _json(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"
