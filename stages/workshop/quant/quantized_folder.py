"""A quantized folder, read back: each weight in the form it has on the device, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.artifacts.errors import ModelError
from stages.device.contract.kv_scales import KvScales, read_kv_scales
from stages.workshop.quant import quantization_config
from stages.workshop.quant.conversion import read_config
from stages.workshop.quant.packed import PACKED, SUFFIXES, Quantized, dequantize, round_to_nearest, unpack
from stages.workshop.quant.policy import FLOAT, Scheme
from stages.workshop.quant.tensor_files import TensorFolder

if TYPE_CHECKING:
    import torch


class QuantizedFolder:
    """Weights and settings of a folder that `bluelm quantize` wrote.

    Attributes:
        own: the `bluelm` key of its quantization_config.
        tensors: its safetensors.
    """

    def __init__(self, folder: Path) -> None:
        """Reads configuration and headers.

        Raises:
            ModelError: not a quantized folder, or damaged.
        """
        self.folder = folder
        self.config = read_config(folder)
        self._groups, self.own = quantization_config.read(self.config, str(folder / "config.json"))
        self.tensors = TensorFolder(folder)

    def scheme(self, module: str) -> Scheme:
        """How the device stores a module's weight; nothing but headers is read."""
        return self.own.at_export.get(module) or quantization_config.scheme_of(module, self._groups) or FLOAT

    def quantized(self, module: str) -> Quantized | None:
        """The integer weight of a module as the device has it, or None where it is float.

        A module that is quantized only at export (embedding, tied head) is rounded here, with the same result.

        Raises:
            ModelError: a tensor of the module is missing.
        """
        later = self.own.at_export.get(module)
        if later is not None:
            return round_to_nearest(later.tensor, self.tensors.read(later.tensor), later, self.own.scale_format)
        scheme = quantization_config.scheme_of(module, self._groups)
        if scheme is None:
            return None
        missing = [suffix for suffix in SUFFIXES if f"{module}.{suffix}" not in self.tensors.infos]
        if missing:
            raise ModelError(
                f"{self.folder}: {module} has no {', '.join(missing)}.",
                "Its weight cannot be read.",
                "Copy the folder again, or make it again with bluelm quantize.",
            )
        return unpack({suffix: self.tensors.read(f"{module}.{suffix}") for suffix in SUFFIXES}, scheme)

    def weight(self, module: str) -> np.ndarray:
        """The float32 weight [N, K] that the device computes with.

        Raises:
            ModelError: the folder has no such weight.
        """
        quantized = self.quantized(module)
        if quantized is not None:
            return dequantize(quantized)
        return self.tensor(f"{module}.weight").float().numpy()

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor as stored (a norm, a bias, a float weight).

        Raises:
            ModelError: the folder has none of that name.
        """
        if name not in self.tensors.infos:
            raise ModelError(
                f"{self.folder} has no tensor {name}.",
                "The model needs it.",
                "Copy the folder again, or make it again with bluelm quantize.",
            )
        return self.tensors.read(name)

    def packed_modules(self) -> list[str]:
        """Modules whose weights are stored as integers."""
        return [name.removesuffix(f".{PACKED}") for name in self.tensors.infos if name.endswith(f".{PACKED}")]

    def kv_scales(self, layers: int) -> KvScales | None:
        """Scales of the INT8 cache, or None when the cache stays float.

        Raises:
            ModelError: the file is missing or broken.
        """
        return read_kv_scales(self.folder, layers) if self.own.kv == "int8" else None

    def float_state(self) -> dict[str, torch.Tensor]:
        """All parameters by name, packed weights dequantized to float32; what only export quantizes is float."""
        import torch

        packed = set(self.packed_modules())
        state = {f"{name}.weight": torch.from_numpy(self.weight(name)) for name in packed}
        for name in self.tensors.infos:
            module, _, leaf = name.rpartition(".")
            if not (module in packed and leaf in SUFFIXES):
                state[name] = self.tensors.read(name)
        return state
