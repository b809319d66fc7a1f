"""Token ids to rows of the embedding table, read from where export wrote them: no session holds the table in memory.

Shapes: T ids, V vocabulary, H model width, G blocks per row.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.device_config import EmbeddingSpec
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.device.contract.tensor_ref import TensorRef, map_files


class Embedder:
    """The rows of an embedding table, the very numbers that embedding.onnx gives.

    Rows are read from the file, not from a mapping of it: a mapping's pages would have to be let go of at each token,
    and that interrupts every other core.

    Args:
        folder: the exported model.
        spec: what its `device.json` says of the table.
        width: H; a row's last block may be padded beyond it.

    Raises:
        ModelError: the file of the table is missing or too short.
    """

    def __init__(self, folder: Path, spec: EmbeddingSpec, width: int) -> None:
        self._spec, self._width = spec, width
        refs = [ref for ref in (spec.values, spec.scales) if ref is not None]
        for name, mapped in map_files(folder, refs).items():
            for ref in refs:
                if ref.file == name:
                    mapped.array(ref)  # a short file is told now, not at the first question
        self._files = {name: (folder / name).open("rb", buffering=0) for name in {ref.file for ref in refs}}
        for stream in self._files.values():
            weakref.finalize(self, stream.close)

    def __call__(self, ids: list[int]) -> NDArray[np.float32]:
        """Embeds T ids: [T, H].

        Raises:
            ModelError: an id is none of the table's.
        """
        wanted, rows = np.asarray(ids, np.int64), self._spec.values.shape[0]  # [T]
        strange = wanted[(wanted < 0) | (wanted >= rows)]
        if len(strange):
            raise ModelError(
                f"The token {strange[0]} has no row in the embedding table, which has {rows}.",
                "Tokenizer and model do not belong together.",
                "Export the model again with its own tokenizer: bluelm export CHECKPOINT --out FOLDER --force",
            )
        return self._dequantized(wanted)

    def _dequantized(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        spec, width = self._spec, self._width
        stored = self._rows(spec.values, ids)
        if spec.scales is None or spec.block is None:
            return stored.astype(np.float32, copy=False)
        scales: NDArray[np.float32] = self._rows(spec.scales, ids)  # [T, G]
        blocks = stored.reshape(*scales.shape, -1)  # [T, G, bytes per block]
        if spec.form == "int4":
            return int4_blocks.dequantize(Int4Blocks(int4_blocks.unpack(blocks, width), scales, spec.block))
        # A row's scale is the same in all of its blocks.
        return int8_channels.dequantize(Int8Channels(int8_channels.unpack(blocks, width), scales[:, 0]))

    def _rows(self, ref: TensorRef, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows of a tensor.

        Raises:
            ModelError: the file has become shorter.
        """
        stream = self._files[ref.file]
        rows = np.empty((len(ids), *ref.shape[1:]), ref.dtype)
        row_bytes = ref.nbytes // ref.shape[0]
        for row, index in zip(rows, ids.tolist(), strict=True):
            stream.seek(ref.offset + index * row_bytes)
            if stream.readinto(memoryview(row).cast("B")) != row_bytes:
                raise ModelError(
                    f"{stream.name} ends before the row {index} of the embedding table.",
                    "The file was changed while the model was in use.",
                    "Copy the folder again, or export the model again: bluelm export CHECKPOINT --out FOLDER --force",
                )
        return rows
