"""The language model of a checkpoint or a quantized folder as one GGUF file that llama.cpp runs.

Integers stay what they are (`gguf_blocks`): llama.cpp answers with the weights that `bluelm quantize` chose. What the
file cannot say: the INT8 KV cache's static scales (llama.cpp has float16, or its own Q8_0), activations in INT16 (it
rounds the inputs of quantized products to INT8 in blocks of 32), chunks, and pictures (`gguf_picture`).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.artifacts.errors import MissingExtraError, ModelError
from stages.artifacts.events import Progress
from stages.device.contract.device_config import PromptSpec
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD, CheckpointWeights
from stages.workshop.graph.decoder import MODEL
from stages.workshop.graph.gguf_blocks import BLOCK, GgufTensor, padded, tensor_of
from stages.workshop.graph.gguf_shape import GgufShape, turned_order
from stages.workshop.graph.gguf_tokenizer import GgufTokenizer
from stages.workshop.graph.linear import Linear

if TYPE_CHECKING:
    from gguf import GGUFWriter

MODEL_FILE = "model.gguf"
# llama.cpp's names of a layer's Linears.
LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q8_0": 7}


@dataclass(frozen=True)
class GgufSummary:
    """What a file holds: tensors by type, and those whose scales had to be rounded to float16."""

    kinds: dict[str, int]
    rounded: tuple[str, ...]


def require_gguf() -> None:
    """Raises: MissingExtraError: the package gguf is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", "neighbours", "writing GGUF files")


def open_writer(path: Path, architecture: str) -> GGUFWriter:
    """A writer that spools tensors to disk."""
    from gguf import GGUFWriter

    return GGUFWriter(path, architecture, use_temp_file=True)


def write_model(
    path: Path,
    name: str,
    weights: CheckpointWeights,
    shape: GgufShape,
    tokenizer: GgufTokenizer,
    prompt: PromptSpec,
    template: str,
) -> Generator[Progress, None, GgufSummary]:
    """Writes the file.

    Args:
        path: the file.
        name: what it calls the model.
        weights: of the folder.
        shape: of the language model.
        tokenizer: its tokens.
        prompt: special tokens.
        template: the chat template.

    Yields:
        Progress, one unit per layer.

    Raises:
        ModelError: a weight is missing, or a scale does not fit into float16.
    """
    writer = open_writer(path, shape.architecture)
    _add_settings(writer, name, shape)
    _add_tokenizer(writer, tokenizer, prompt, template)
    kinds: Counter[str] = Counter()
    rounded: list[str] = []
    done, total = 0, shape.decoder.layers + 1
    for tensor_name, tensor in _tensors(weights, shape):
        if tensor is None:
            done += 1
            yield Progress("writing GGUF", done, total, "part")
            continue
        kinds[tensor.kind] += 1
        if not tensor.exact:
            rounded.append(tensor_name)
        add_tensor(writer, tensor_name, tensor)
    writer.add_file_type(_FILE_TYPES[max(kinds, key=lambda kind: (kind.startswith("Q"), kinds[kind]))])
    close_writer(writer)
    return GgufSummary(dict(sorted(kinds.items())), tuple(rounded))


def add_tensor(writer: GGUFWriter, name: str, tensor: GgufTensor) -> None:
    """Adds a tensor of any type."""
    from gguf import GGMLQuantizationType

    plain = tensor.kind in ("F32", "F16")
    writer.add_tensor(name, tensor.data, raw_dtype=None if plain else GGMLQuantizationType[tensor.kind])


def close_writer(writer: GGUFWriter) -> None:
    """Writes everything that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_settings(writer: GGUFWriter, name: str, shape: GgufShape) -> None:
    from gguf import RopeScalingType

    decoder = shape.decoder
    writer.add_name(name)
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(decoder.hidden)
    writer.add_block_count(decoder.layers)
    writer.add_feed_forward_length(whole_blocks(decoder.mlp))
    writer.add_head_count(decoder.heads)
    writer.add_head_count_kv(decoder.kv_heads)
    writer.add_key_length(decoder.head_dim)
    writer.add_value_length(decoder.head_dim)
    writer.add_layer_norm_rms_eps(decoder.epsilon)
    writer.add_rope_dimension_count(decoder.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(decoder.vocab)
    if shape.rope_linear != 1:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_linear)


def _add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer, prompt: PromptSpec, template: str) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.kinds)
    if tokenizer.merges:
        writer.add_token_merges(tokenizer.merges)
    if tokenizer.scores:
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(tokenizer.space_prefix)
    named = tokenizer.tokens.index(prompt.bos_token) if prompt.bos_token in tokenizer.tokens else None
    bos = named if tokenizer.bos is None else tokenizer.bos
    if bos is not None:
        writer.add_bos_token_id(bos)
    writer.add_add_bos_token(tokenizer.bos is not None)
    if prompt.eos_token_ids:
        writer.add_eos_token_id(prompt.eos_token_ids[0])
    if len(prompt.eos_token_ids) > 1:
        writer.add_eot_token_id(prompt.eos_token_ids[1])
    writer.add_chat_template(template)


def _tensors(weights: CheckpointWeights, shape: GgufShape) -> Iterator[tuple[str, GgufTensor | None]]:
    """All tensors by llama.cpp's names; None after each layer, and after what stands before them."""
    decoder = shape.decoder
    table = weights.linear(EMBEDDING, decoder.vocab, decoder.hidden, bias=False)
    yield "token_embd.weight", packed(EMBEDDING, table.weight, stored_type(weights, EMBEDDING))
    if not weights.tied or weights.scheme(HEAD) != weights.scheme(EMBEDDING):
        del table
        head = weights.linear(HEAD, decoder.vocab, decoder.hidden, bias=False)
        yield "output.weight", packed(HEAD, head.weight, stored_type(weights, HEAD))
    yield "output_norm.weight", _vector(weights, f"{MODEL}.norm.weight", decoder.hidden)
    if shape.rope_factors is not None:
        yield "rope_freqs.weight", GgufTensor("F32", shape.rope_factors)
    yield "", None
    for layer in range(decoder.layers):
        yield from _layer(weights, shape, layer)
        yield "", None


def _layer(weights: CheckpointWeights, shape: GgufShape, layer: int) -> Iterator[tuple[str, GgufTensor]]:
    decoder, place, source = shape.decoder, f"blk.{layer}", f"{MODEL}.layers.{layer}"
    yield f"{place}.attn_norm.weight", _vector(weights, f"{source}.input_layernorm.weight", decoder.hidden)
    yield f"{place}.ffn_norm.weight", _vector(weights, f"{source}.post_attention_layernorm.weight", decoder.hidden)
    if decoder.qk_norm:
        for part in ("q_norm", "k_norm"):
            norm = _vector(weights, f"{source}.self_attn.{part}.weight", decoder.head_dim)
            yield f"{place}.attn_{part}.weight", norm
    sizes = {
        "attn_q": (decoder.query_rows, decoder.hidden, decoder.qkv_bias),
        "attn_k": (decoder.kv_rows, decoder.hidden, decoder.qkv_bias),
        "attn_v": (decoder.kv_rows, decoder.hidden, decoder.qkv_bias),
        "attn_output": (decoder.hidden, decoder.query_rows, decoder.out_bias),
        "ffn_gate": (decoder.mlp, decoder.hidden, decoder.mlp_bias),
        "ffn_up": (decoder.mlp, decoder.hidden, decoder.mlp_bias),
        "ffn_down": (decoder.hidden, decoder.mlp, decoder.mlp_bias),
    }
    for name, (rows, columns, bias) in sizes.items():
        module = f"{source}.{LINEARS[name]}"
        linear = weights.linear(module, rows, columns, bias=bias)
        if name.startswith("ffn"):
            wide = whole_blocks(decoder.mlp)
            linear = padded(linear, *((rows, wide) if name == "ffn_down" else (wide, columns)))
        if shape.paired and name in ("attn_q", "attn_k"):
            linear = _reordered(linear, turned_order(rows, decoder.heads if name == "attn_q" else decoder.kv_heads))
        yield f"{place}.{name}.weight", packed(module, linear.weight, stored_type(weights, module))
        if linear.bias is not None:
            yield f"{place}.{name}.bias", GgufTensor("F32", linear.bias)


def whole_blocks(width: int) -> int:
    """A width that blocks divide."""
    return -(-width // BLOCK) * BLOCK


def _reordered(linear: Linear, order: np.ndarray) -> Linear:
    """The same Linear with its output rows in another order; each keeps its own scales."""
    weight: Any = linear.weight
    if isinstance(weight, np.ndarray):
        moved: Any = weight[order]
    else:
        moved = weight._replace(values=weight.values[order], scales=weight.scales[order])
    return replace(linear, weight=moved, bias=None if linear.bias is None else linear.bias[order])


def _vector(weights: CheckpointWeights, name: str, size: int) -> GgufTensor:
    return GgufTensor("F32", weights.tensor(name, (size,)))


def stored_type(weights: CheckpointWeights, module: str) -> str:
    """The float type of a module's weight in the folder; a tied head's is the embedding's."""
    info = weights.infos.get(f"{module}.weight") or weights.infos.get(f"{EMBEDDING}.weight")
    return info.dtype if info is not None else "F32"


def packed(name: str, weight: Any, stored: str) -> GgufTensor:
    """The weight of a module as a tensor; raises ModelError where a scale does not fit into float16."""
    try:
        return tensor_of(weight, stored)
    except OverflowError as error:
        raise ModelError(
            f"{name}: {error}.",
            "Its numbers would become infinite; another scale_dtype would not help, weights there are hundreds of "
            "thousands.",
            "Take a checkpoint from before training diverged, or keep these weights float: quantize again with a rule "
            f"of their own before the others: modules: {name}, weights: float",
        ) from error
