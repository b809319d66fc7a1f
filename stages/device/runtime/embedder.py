"""Token ids to rows of the embedding table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import INPUT_IDS, INPUTS_EMBEDS
from stages.device.runtime.sessions import Graph, Port


class Embedder:
    """`embedding.onnx`: token ids to rows of the embedding table."""

    def __init__(self, graph: Graph, spec: DecoderSpec) -> None:
        graph.check(
            inputs={INPUT_IDS: Port("tensor(int64)", (1, None))},
            outputs={INPUTS_EMBEDS: Port("tensor(float)", (1, None, spec.hidden_size))},
        )
        self.graph = graph

    def __call__(self, ids: list[int]) -> NDArray[np.float32]:
        """Embeds T ids: [T, H]."""
        batch = np.asarray([ids], dtype=np.int64)  # [1, T]
        rows: NDArray[np.float32] = self.graph.run({INPUT_IDS: batch}, [INPUTS_EMBEDS])[0][0]
        return rows  # [T, H]
