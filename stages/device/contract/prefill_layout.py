"""`prefill.json`: how a prompt is read layer by layer, with INT8 products over the decoder's INT4 weights.

    prefill.json      this file: for each layer its graph and where its weights lie
    prefill-N.onnx    one layer without weights; they are inputs. As many as there are combinations of matmul forms.
    prefill.data      what decoder.onnx has no use for: norms, channel scales, integer steps (all small)

The large weights are decoder.onnx's own, in its layout. Sec. 3.4's chunked prefill; the two-level scales that make the
expansion exact are `int4_blocks`'.

Axes: N output rows, K input columns, B block length, G = K/B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from stages.artifacts.errors import ModelError
from stages.artifacts.typed_json import read_typed_json
from stages.device.contract.tensor_ref import Dtype, TensorRef, bare

PREFILL_FILE = "prefill.json"
PREFILL_DATA_FILE = "prefill.data"

# Inputs and outputs of a layer's graph, beside its weights `<linear>.weight`, `.scales`, `.bias` and its norms.
HIDDEN_STATES = "hidden_states"
OUTPUT_STATES = "output_states"
PAST_KEY, PAST_VALUE = "past_key", "past_value"
PRESENT_KEY, PRESENT_VALUE = "present_key", "present_value"
SEQLENS_K = "seqlens_k"
TOTAL_LENGTH = "total_sequence_length"
PAST_LENGTH = "past_length"
RUNTIME_INPUTS = frozenset({HIDDEN_STATES, PAST_KEY, PAST_VALUE, SEQLENS_K, TOTAL_LENGTH, PAST_LENGTH})
INPUT_NORM = "input_layernorm.weight"
ATTENTION_NORM = "post_attention_layernorm.weight"
# Norms of each head's queries and keys, in models that have them.
QUERY_NORM, KEY_NORM = "self_attn.q_norm.weight", "self_attn.k_norm.weight"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrefillLinear(_Strict):
    """One Linear: the INT8 weight that its product takes, or the INT4 one that is expanded to it.

    Attributes:
        values: int8 [K, N]; or uint8 [N, G, B/2], two INT4 values a byte, as MatMulNBits has them.
        channel: float32 [N], the scale of each output.
        steps: int8 [G, N], what each block's INT4 values are multiplied with; only for INT4.
        bias: float32 [N].
    """

    values: TensorRef
    channel: TensorRef
    steps: TensorRef | None = None
    bias: TensorRef | None = None

    @model_validator(mode="after")
    def _fits(self) -> PrefillLinear:
        wanted: list[tuple[TensorRef | None, str, tuple[int, ...]]] = [(self.channel, "float32", (self.rows,))]
        wanted.append((self.bias, "float32", (self.rows,)))
        if self.steps is None:
            if self.values.dtype != "int8" or len(self.values.shape) != 2:
                raise ValueError("a weight without steps is int8 [K, N]")
        else:
            if self.values.dtype != "uint8" or len(self.values.shape) != 3:
                raise ValueError("a weight with steps is uint8 [N, G, B/2]")
            wanted.append((self.steps, "int8", (self.values.shape[1], self.rows)))
        for ref, dtype, shape in wanted:
            if ref is not None and (ref.dtype, ref.shape) != (dtype, shape):
                raise ValueError(f"{ref.dtype} {list(ref.shape)} stands where {dtype} {list(shape)} belongs")
        return self

    @property
    def rows(self) -> int:
        """Outputs, N."""
        return self.values.shape[0] if self.steps is not None else self.values.shape[1]

    @property
    def columns(self) -> int:
        """Inputs, K."""
        if self.steps is None:
            return self.values.shape[0]
        return 2 * self.values.shape[1] * self.values.shape[2]

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """All its tensors."""
        return tuple(ref for ref in (self.values, self.channel, self.steps, self.bias) if ref is not None)


class PrefillLayer(_Strict):
    """One layer: its graph, its Linears by name, its norms by name."""

    graph: str
    linears: dict[str, PrefillLinear]
    norms: dict[str, TensorRef]

    @field_validator("graph")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        return bare(file)

    @model_validator(mode="after")
    def _apart(self) -> PrefillLayer:
        for name in self.norms:
            if name in RUNTIME_INPUTS or name in self._of_linears:
                raise ValueError(f"{name} is no name for a norm")
        return self

    @property
    def tensors(self) -> dict[str, tuple[Dtype, tuple[int, ...]]]:
        """Type and shape of each tensor that its graph takes, by the input's name."""
        return self._of_linears | {name: (ref.dtype, ref.shape) for name, ref in self.norms.items()}

    @property
    def _of_linears(self) -> dict[str, tuple[Dtype, tuple[int, ...]]]:
        found: dict[str, tuple[Dtype, tuple[int, ...]]] = {}
        for name, linear in self.linears.items():
            found[f"{name}.weight"] = "int8", (linear.columns, linear.rows)
            found[f"{name}.scales"] = "float32", (linear.rows,)
            if linear.bias is not None:
                found[f"{name}.bias"] = "float32", (linear.rows,)
        return found

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """All its tensors."""
        return (*(ref for linear in self.linears.values() for ref in linear.refs), *self.norms.values())


class PrefillLayout(_Strict):
    """The whole of `prefill.json`. The last layer only makes keys and values: its output is the decoder's business."""

    schema_version: Literal[1] = 1
    layers: tuple[PrefillLayer, ...]

    def write(self, folder: Path) -> None:
        """Writes `prefill.json` into an export folder."""
        (folder / PREFILL_FILE).write_text(self.model_dump_json(exclude_none=True) + "\n", encoding="utf-8")


def read_prefill_layout(folder: Path, layers: int) -> PrefillLayout | None:
    """Reads `prefill.json` of an exported model; None where it has none.

    Raises:
        ModelError: the file is broken, or for another number of layers.
    """
    path = folder / PREFILL_FILE
    if not path.is_file():
        return None
    why, fix = "It says where the weights lie.", "Export the model again: bluelm export CHECKPOINT --out FOLDER --force"
    layout = read_typed_json(path, PrefillLayout, ModelError, unreadable=why, broken=why, fix=fix)
    if len(layout.layers) != layers:
        raise ModelError(f"{path} has {len(layout.layers)} layers, the model has {layers}.", why, fix)
    return layout
