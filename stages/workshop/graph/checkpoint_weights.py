"""Weights of a checkpoint or a quantized folder, read from its safetensors one at a time; no model is built.

A Linear packed by compressed-tensors comes out as the integers that are in the file. What the folder leaves to the
export (embedding, tied head) is rounded here, by the contract's numerics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError
from stages.workshop.graph.linear import Floats, Linear
from stages.workshop.quant import packed, quantization_config
from stages.workshop.quant.policy import Scheme
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.tensor_files import TensorFolder

EMBEDDING, HEAD = "language_model.model.embed_tokens", "language_model.lm_head"


class CheckpointWeights:
    """The weights of a folder.

    Attributes:
        own: what `bluelm quantize` noted about the folder; defaults for a float checkpoint.
        quantized: whether some of its Linears are packed.
    """

    def __init__(self, folder: Path, at_export: Mapping[str, Scheme] | None = None) -> None:
        """Reads the configuration and the headers.

        Args:
            folder: the checkpoint.
            at_export: schemes of modules that are float in the file, over what the folder says itself.

        Raises:
            ModelError: no safetensors, damaged ones, or a quantization other than `bluelm quantize`'s.
        """
        self.folder = folder
        self._tensors = TensorFolder(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.quantized = "quantization_config" in config
        self._groups: dict[str, Any] = {}
        self.own = OwnKeys(kv="float")
        if self.quantized:
            self._groups, self.own = quantization_config.read(config, str(folder / "config.json"))
        self._at_export = {**self.own.at_export, **(at_export or {})}

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        """The Linear of a module in the form it is stored in; see `WeightSource`."""
        offset = self.tensor(f"{name}.bias", (rows,)) if bias else None
        if f"{name}.{packed.PACKED}" in self._tensors.infos:
            return Linear(self._unpacked(name, rows, columns), offset)
        stored = EMBEDDING if name == HEAD and f"{HEAD}.weight" not in self._tensors.infos else name
        weight = self._read(f"{stored}.weight", (rows, columns))
        scheme = self._at_export.get(name)
        if scheme is None or scheme.bits is None:
            return Linear(weight.float().numpy(), offset)
        return Linear(packed.round_to_nearest(name, weight, scheme, self.own.scale_dtype), offset)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A parameter in float32; see `WeightSource`."""
        values: Floats = self._read(name, shape).float().numpy()
        return values

    def _unpacked(self, name: str, rows: int, columns: int) -> packed.Quantized:
        scheme = quantization_config.scheme_of(name, self._groups)
        if scheme is None:
            raise ModelError(
                f"{self.folder}: {name} is packed, but no config group of config.json names it.",
                "Its bits cannot be told.",
                "Make the folder again: bluelm quantize CHECKPOINT --data CORPUS --out FOLDER --force",
            )
        tensors = {suffix: self._tensors.read(f"{name}.{suffix}") for suffix in packed.SUFFIXES}
        self._check_shape(name, tuple(tensors[packed.SHAPE].tolist()), (rows, columns))
        return packed.unpack(tensors, scheme)

    def _read(self, name: str, shape: tuple[int, ...]) -> Any:
        info = self._tensors.infos.get(name)
        if info is None:
            raise ModelError(
                f"{self.folder} has no weight {name}.",
                "The graph would miss a part.",
                "Check that config.json and the safetensors belong together; a public checkpoint is first made ours "
                "with: bluelm adopt FOLDER --out CHECKPOINT",
            )
        self._check_shape(name, info.shape, shape)
        return self._tensors.read(name)

    def _check_shape(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if found != wanted:
            raise ModelError(
                f"{self.folder}: {name} has the shape {list(found)}, config.json makes it {list(wanted)}.",
                "The weights are not those of this configuration.",
                "Check that config.json and the safetensors belong together.",
            )
