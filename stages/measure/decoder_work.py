"""What a decoder has to do, counted from its files: the bytes of a token, the multiplications of a prompt.

Decoding reads, for each token, every weight once (as stored: INT4 values and their scales, norms, head) and the keys
and values of all positions so far. Not counted: the row of the embedding table, activations, what onnxruntime adds when
it packs weights anew. The share of the memory's measured bandwidth is thus a lower bound of how busy the memory is.

A prompt's work is the multiplications and additions of its Linears, 2·N·K a position each; those behind the last
position (`product_forms`) count once a prompt. Compact prefill reads all positions but the last, and of the last layer
makes keys and values only; the last position goes through the whole of decoder.onnx. (So do prompts too short for it;
their queries of the last layer, the only difference, are not counted.) Attention is not counted, and INT16 activations,
which take two 8-bit products, count as one: it is the work that is wanted, not the work that is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import DECODER_FILE
from stages.device.contract.prefill_layout import PrefillLayout, read_prefill_layout
from stages.measure.graph_file import GraphFile, read_graph_file
from stages.measure.product_forms import fully_read, products_of

KV_BYTES = {"float32": 4, "int8": 1}


@dataclass(frozen=True)
class DecoderWork:
    """The work of a decoder.

    Attributes:
        weight_bytes: read for each token.
        kv_bytes: of one position's keys and values in all layers.
        macs: multiplications of the Linears at each position.
        macs_once: of a prompt beyond that: what only the last position goes through.
    """

    weight_bytes: int
    kv_bytes: int
    macs: int
    macs_once: int

    def bytes_per_token(self, length: float) -> float:
        """Bytes that decoding one token reads behind `length` positions."""
        return self.weight_bytes + self.kv_bytes * length

    def operations(self, positions: int) -> int:
        """Multiplications and additions of reading a prompt."""
        return 2 * (self.macs * positions + self.macs_once)


def decoder_work(folder: Path, spec: DecoderSpec) -> DecoderWork:
    """Counts the work of an exported model's decoder.

    Raises:
        ModelError: decoder.onnx is missing, or it or prefill.json is broken.
    """
    layout = read_prefill_layout(folder, spec.num_layers)
    return work_of(read_graph_file(folder / DECODER_FILE), spec, layout)


def work_of(graph: GraphFile, spec: DecoderSpec, layout: PrefillLayout | None = None) -> DecoderWork:
    """Counts the work of a decoder's graph, with the layout of its compact prefill where it has one."""
    products = products_of(graph)
    whole = sum(product.macs or 0 for product in products)
    if layout is None:
        macs = sum(product.macs or 0 for product in products if not product.once)
    else:
        macs = sum(linear.rows * linear.columns for layer in layout.layers for linear in layer.linears.values())
    return DecoderWork(
        weight_bytes=sum(graph.weights[name].nbytes for name in fully_read(graph)),
        kv_bytes=2 * spec.num_layers * spec.num_key_value_heads * spec.head_dim * KV_BYTES[spec.kv_dtype],
        macs=macs,
        macs_once=whole - macs,
    )
