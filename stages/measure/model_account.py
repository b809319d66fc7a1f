"""What an exported model's graphs say of it: the forms of its products, and what its decoder has to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import DECODER_FILE, VISION_FILE
from stages.device.contract.prefill_layout import read_prefill_layout
from stages.measure.decoder_work import DecoderWork, work_of
from stages.measure.graph_file import read_graph_file
from stages.measure.product_forms import describe_forms


@dataclass(frozen=True)
class ModelAccount:
    """The forms of the products that encoding, prefill and decoding run, in words, and the decoder's work.

    With a compact prefill its layers' forms are those of reading a prompt; otherwise the decoder's are.
    """

    vision_forms: str
    prefill_forms: str
    decoder_forms: str
    decoder: DecoderWork


def account_of(folder: Path, spec: DecoderSpec) -> ModelAccount:
    """Reads the graphs of an exported model; no weights.

    Raises:
        ModelError: a graph is missing or broken.
    """
    decoder = read_graph_file(folder / DECODER_FILE)
    layout = read_prefill_layout(folder, spec.num_layers)
    layers = [decoder]
    if layout is not None:
        graphs = {name: read_graph_file(folder / name) for name in {layer.graph for layer in layout.layers}}
        layers = [graphs[layer.graph] for layer in layout.layers]
    return ModelAccount(
        vision_forms=describe_forms([read_graph_file(folder / VISION_FILE)]),
        prefill_forms=describe_forms(layers),
        decoder_forms=describe_forms([decoder]),
        decoder=work_of(decoder, spec, layout),
    )
