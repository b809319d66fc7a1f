"""mmproj.gguf: vision tower and connector for llama.cpp, where one of its projectors is the same arithmetic.

Its `lfm2` projector is: a SigLIP tower, every 2×2 patches joined in the order (dy, dx, c), LayerNorm, Linear, GELU,
Linear. What differs even then: llama.cpp shows the model one picture, resized, and not tiles by the relaxed rule; it
writes <|image_start|> and <|image_end|> around it; its GELU is the tanh form, 5e-4 from the exact one at most.
Source: llama.cpp, tools/mtmd/models/siglip.cpp and clip.cpp (`build_patch_merge_permute`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Progress
from stages.device.imaging.presets import ImagingPreset
from stages.workshop.graph.checkpoint_settings import read_imaging
from stages.workshop.graph.checkpoint_weights import CheckpointWeights
from stages.workshop.graph.gguf_blocks import GgufTensor, floats, padded
from stages.workshop.graph.gguf_model import add_tensor, close_writer, open_writer, packed, stored_type, whole_blocks
from stages.workshop.graph.vision import CONNECTOR, TOWER
from stages.workshop.graph.vision_shape import VisionShape, vision_shape

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

PICTURE_FILE = "mmproj.gguf"
PROJECTOR = "lfm2"
_GELU = ("gelu", "gelu_pytorch_tanh", "gelu_new")
_EMBEDDINGS = f"{TOWER}.embeddings"


@dataclass(frozen=True)
class GgufPicture:
    """A vision side that llama.cpp can express."""

    shape: VisionShape
    imaging: ImagingPreset


def gguf_picture(config: BlueLMVConfig, checkpoint: Path) -> GgufPicture | str:
    """The vision side of a checkpoint; or, in a sentence, why llama.cpp cannot express it."""
    try:
        shape = vision_shape(config)
    except BluelmError as error:
        return str(error)
    reasons = list(_reasons(shape))
    return "; ".join(reasons) if reasons else GgufPicture(shape, read_imaging(checkpoint))


def write_picture(
    path: Path, name: str, weights: CheckpointWeights, picture: GgufPicture
) -> Generator[Progress, None, list[str]]:
    """Writes the file; yields progress; returns the tensors whose scales had to be rounded to float16."""
    shape, imaging = picture.shape, picture.imaging
    writer = open_writer(path, "clip")
    writer.add_name(name)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(PROJECTOR)
    writer.add_vision_projection_dim(shape.hidden)
    # The graph takes whole patches only: what is left over at the right and below is never seen.
    writer.add_vision_image_size(shape.side * shape.patch_size)
    writer.add_vision_patch_size(shape.patch_size)
    writer.add_vision_embedding_length(shape.width)
    writer.add_vision_feed_forward_length(whole_blocks(shape.mlp))
    writer.add_vision_block_count(shape.layers)
    writer.add_vision_head_count(shape.heads)
    writer.add_vision_attention_layernorm_eps(shape.epsilon)
    writer.add_vision_image_mean(list(imaging.image_mean))
    writer.add_vision_image_std(list(imaging.image_std))
    writer.add_vision_use_gelu(True)
    writer.add_vision_projector_scale_factor(shape.downsample)
    rounded, done = [], 0
    for tensor_name, tensor in _tensors(weights, shape):
        if tensor is None:
            done += 1
            yield Progress("writing GGUF for pictures", done, shape.layers + 1, "part")
            continue
        add_tensor(writer, tensor_name, tensor)
        if not tensor.exact:
            rounded.append(tensor_name)
    close_writer(writer)
    return rounded


def _reasons(shape: VisionShape) -> Iterator[str]:
    if shape.downsample == 1:
        yield "its lfm2 projector joins 2×2 patches and normalizes them, this model's connector does neither"
    if shape.fuse_linear:
        yield "no projector of llama.cpp has a Linear between the joined patches and the MLP (fuse_linear)"
    if not shape.rows_first:
        yield "llama.cpp gives image tokens row by row, this model takes them column by column (token_order)"
    if shape.side % shape.downsample:
        yield (
            f"a tile has {shape.side}×{shape.side} patches, and llama.cpp resizes pictures to whole pairs of patches: "
            "it would interpolate the positions of one more"
        )
    if shape.activation not in _GELU or shape.connector_activation not in _GELU:
        yield f"its projector has GELU, this model {shape.activation} and {shape.connector_activation}"


def _tensors(weights: CheckpointWeights, shape: VisionShape) -> Iterator[tuple[str, GgufTensor | None]]:
    """All tensors by llama.cpp's names; None after each layer, and after what stands beside them."""
    kernel = (shape.width, 3, shape.patch_size, shape.patch_size)
    yield "v.patch_embd.weight", _plain(weights, f"{_EMBEDDINGS}.patch_embedding.weight", kernel)
    yield "v.patch_embd.bias", _plain(weights, f"{_EMBEDDINGS}.patch_embedding.bias", (shape.width,))
    table = (shape.patches, shape.width)
    yield "v.position_embd.weight", _plain(weights, f"{_EMBEDDINGS}.position_embedding.weight", table)
    if shape.post_layernorm:
        yield from _norm(weights, "v.post_ln", f"{TOWER}.post_layernorm", shape.width)
    yield from _norm(weights, "mm.input_norm", f"{CONNECTOR}.norm", shape.joined)
    yield from _linear(weights, "mm.1", f"{CONNECTOR}.linear_1", shape.hidden, shape.joined)
    yield from _linear(weights, "mm.2", f"{CONNECTOR}.linear_2", shape.hidden, shape.hidden)
    yield "", None
    for layer in range(shape.layers):
        yield from _layer(weights, shape, layer)
        yield "", None


def _layer(weights: CheckpointWeights, shape: VisionShape, layer: int) -> Iterator[tuple[str, GgufTensor]]:
    place, source, width = f"v.blk.{layer}", f"{TOWER}.encoder.layers.{layer}", shape.width
    wide = whole_blocks(shape.mlp)
    yield from _norm(weights, f"{place}.ln1", f"{source}.layer_norm1", width)
    yield from _norm(weights, f"{place}.ln2", f"{source}.layer_norm2", width)
    for name, part in (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj"), ("attn_out", "out_proj")):
        yield from _linear(weights, f"{place}.{name}", f"{source}.self_attn.{part}", width, width)
    yield from _linear(weights, f"{place}.ffn_up", f"{source}.mlp.fc1", shape.mlp, width, rows_to=wide)
    yield from _linear(weights, f"{place}.ffn_down", f"{source}.mlp.fc2", width, shape.mlp, columns_to=wide)


def _linear(
    weights: CheckpointWeights,
    name: str,
    module: str,
    rows: int,
    columns: int,
    *,
    rows_to: int | None = None,
    columns_to: int | None = None,
) -> Iterator[tuple[str, GgufTensor]]:
    linear = padded(weights.linear(module, rows, columns, bias=True), rows_to or rows, columns_to or columns)
    yield f"{name}.weight", packed(module, linear.weight, stored_type(weights, module))
    assert linear.bias is not None
    yield f"{name}.bias", GgufTensor("F32", linear.bias)


def _norm(weights: CheckpointWeights, name: str, source: str, size: int) -> Iterator[tuple[str, GgufTensor]]:
    for part in ("weight", "bias"):
        yield f"{name}.{part}", _plain(weights, f"{source}.{part}", (size,))


def _plain(weights: CheckpointWeights, name: str, shape: tuple[int, ...]) -> GgufTensor:
    return floats(weights.tensor(name, shape), "F32")
