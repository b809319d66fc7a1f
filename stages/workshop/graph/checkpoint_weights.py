"""Weights of a checkpoint or a quantized folder, read from its safetensors one at a time; no model is built.

A Linear packed by compressed-tensors comes out as the integers that are in the file. What the folder leaves to the
export (embedding, tied head) is rounded here, by the contract's numerics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.device.contract.activations import Activations
from stages.device.contract.kv_scales import KvScales
from stages.workshop.graph.json_file import read_json
from stages.workshop.graph.linear import Floats, Linear
from stages.workshop.graph.matmul_forms import INT4_BLOCKS
from stages.workshop.quant import quantization_config
from stages.workshop.quant.packed import PACKED, Quantized, ScaleFormat, round_to_nearest
from stages.workshop.quant.policy import FLOAT, Scheme
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.tensor_files import TensorFolder, TensorInfo

EMBEDDING, HEAD = "language_model.model.embed_tokens", "language_model.lm_head"


class CheckpointWeights:
    """The weights of a folder, float or quantized."""

    def __init__(self, folder: Path, at_export: Mapping[str, Scheme] | None = None) -> None:
        """Reads the configuration and the headers.

        Args:
            folder: the checkpoint.
            at_export: schemes of modules that are float in the file, over what the folder says itself.

        Raises:
            ModelError: no safetensors, damaged ones, or a quantization other than `bluelm quantize`'s.
        """
        self.folder = folder
        quantized = "quantization_config" in read_json(folder / "config.json")
        self._quantized = QuantizedFolder(folder) if quantized else None
        self._tensors = self._quantized.tensors if self._quantized else TensorFolder(folder)
        self._layout = (
            quantization_config.read(self._quantized.config, str(folder)) if self._quantized else ({}, OwnKeys())
        )
        self._at_export = dict(at_export or {})
        raise_all(list(self._problems()))

    @property
    def quantized(self) -> bool:
        """Whether `bluelm quantize` wrote the folder."""
        return self._quantized is not None

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """What the headers say about every tensor."""
        return self._tensors.infos

    @property
    def tied(self) -> bool:
        """Whether the head has no weight of its own in the file."""
        return f"{HEAD}.weight" not in self.infos and f"{HEAD}.{PACKED}" not in self.infos

    def scheme(self, module: str) -> Scheme:
        """The form a module's weight will have in the graph; nothing but headers is read."""
        if module in self._at_export:
            return self._at_export[module]
        groups, own = self._layout
        return own.at_export.get(module) or quantization_config.scheme_of(module, groups) or FLOAT

    def activations(self, module: str) -> Activations:
        """What the inputs of a Linear are rounded to."""
        return self._layout[1].activations_of(module)

    def kv_scales(self, layers: int) -> KvScales | None:
        """Scales of an INT8 cache; None where the folder has none.

        Raises:
            ModelError: the file is broken, or missing where the folder says there is one.
        """
        return self._quantized.kv_scales(layers) if self._quantized else None

    def linear(self, name: str, rows: int, columns: int, *, bias: bool) -> Linear:
        """The Linear of a module in the form it has on the device; see `WeightSource`."""
        offset = self.tensor(f"{name}.bias", (rows,)) if bias else None
        quantized = self._integers(name)
        if quantized is not None:
            self._check_shape(name, quantized.values.shape, (rows, columns))
            return Linear(quantized, offset, self.activations(name))
        return Linear(self.tensor(self._weight_of(name), (rows, columns)), offset)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A parameter in float32; see `WeightSource`."""
        info = self._tensors.infos.get(name)
        if info is None:
            raise ModelError(
                f"{self.folder} has no weight {name}.",
                "The graph would miss a part.",
                "Check that config.json and the safetensors belong together; make public checkpoints ours with: "
                "bluelm adopt FOLDER --out CHECKPOINT",
            )
        self._check_shape(name, info.shape, shape)
        values: Floats = self._tensors.read(name).float().numpy()
        return values

    def _problems(self) -> Iterator[BluelmError]:
        """Groups that no kernel multiplies with."""
        groups, own = self._layout
        sizes = {group["weights"]["group_size"] for group in groups.values()}
        sizes |= {scheme.group_size for scheme in own.at_export.values()}
        for size in sorted(sizes - {None, *INT4_BLOCKS}):
            yield ModelError(
                f"{self.folder} has INT4 weights in groups of {size}.",
                f"onnxruntime multiplies with groups of {', '.join(map(str, INT4_BLOCKS))}.",
                "Quantize the checkpoint again with one of these as group_size.",
            )

    def _integers(self, name: str) -> Quantized | None:
        scheme = self._at_export.get(name)
        if scheme is None:
            return self._quantized.quantized(name) if self._quantized else None
        if scheme.bits is None:
            return None
        # As the folder's own: a table that shares its scheme with the head is then the same bytes.
        scales = self._layout[1].scale_format if self.quantized else ScaleFormat(two_level=True)
        return round_to_nearest(name, self._tensors.read(self._weight_of(name)), scheme, scales)

    def _weight_of(self, name: str) -> str:
        """The tensor of a module's weight: a tied head's is the embedding's."""
        if name == HEAD and self.tied:
            return f"{EMBEDDING}.weight"
        return f"{name}.weight"

    def _check_shape(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if found != wanted:
            raise ModelError(
                f"{self.folder}: {name} has the shape {list(found)}, config.json makes it {list(wanted)}.",
                "The weights are not those of this configuration.",
                "Check that config.json and the safetensors belong together.",
            )
