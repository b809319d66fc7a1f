"""text.onnx: embedding.onnx and decoder.onnx as one graph over the same weight files, for engines that know text only.

    input_ids [1, S]   attention_mask [1, P+S]   past_key_values.n.key/value
                       → logits [1, 1, V]   present.n.key/value

onnxruntime-genai has no model type for a decoder on embeddings with this vision tower; this graph it runs as a `llama`,
whatever the architecture was: genai only feeds its inputs. No weight is written again.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, helper

from stages.device.contract import names


def write_text_graph(folder: Path) -> Path:
    """Joins the two graphs of a folder.

    Raises:
        onnx.checker.ValidationError: they do not fit together (a bug).
    """
    first, second = (
        onnx.load(folder / name, load_external_data=False) for name in (names.EMBEDDING_FILE, names.DECODER_FILE)
    )
    model = helper.make_model(
        _joined(first.graph, second.graph),
        ir_version=second.ir_version,
        producer_name=second.producer_name,
        opset_imports=_opsets(first, second),
    )
    path = folder / names.TEXT_FILE
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return path


def _joined(first: GraphProto, second: GraphProto) -> GraphProto:
    """Both graphs' nodes; what the first gives is no input of the second any more. Equal names are equal constants."""
    given = {output.name for output in first.output}
    initializers = {tensor.name: tensor for graph in (first, second) for tensor in graph.initializer}
    return helper.make_graph(
        [*first.node, *second.node],
        "text",
        [*first.input, *(port for port in second.input if port.name not in given)],
        list(second.output),
        list(initializers.values()),
        value_info=[*first.value_info, *first.output, *second.value_info],
    )


def _opsets(*models: ModelProto) -> list[onnx.OperatorSetIdProto]:
    found = {opset.domain: opset for model in models for opset in model.opset_import}
    return [found[domain] for domain in sorted(found)]
