"""`npu.json`: all that a program needs to run the static graphs of `bluelm export --target npu`.

| graph | takes | gives |
|---|---|---|
| patch_embed | pixel_values [T,3,S,S] | patch_embeds [T,P,C] |
| vision | patch_embeds | image_features [T,tokens,H] |
| prefill | inputs_embeds [1,S,H], mask [1,1,S,C+S], cos, sin [1,1,S,D], past [1,kv_heads,C,D] | hidden, present |
| decode | the same with S = 1 | the same |
| head | hidden [1,1,H] | logits [1,1,V] |

Every input and output is an integer with a scale and a zero point (`static_activations`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.errors import ModelError
from stages.artifacts.typed_json import read_typed_json
from stages.device.contract.device_config import DecoderSpec, EmbeddingSpec, PromptSpec, VisionSpec
from stages.device.contract.static_activations import Encoding, StoredType
from stages.device.imaging.spec import TilingSpec

NPU_CONFIG_FILE = "npu.json"
ROTARY_FILE = "rotary.npy"
SCHEMA_VERSION: Final = 1
GRAPHS = ("patch_embed", "vision", "prefill", "decode", "head")
GraphName = Literal["patch_embed", "vision", "prefill", "decode", "head"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PortSpec(_Strict):
    """One input or output: its fixed shape and how its numbers are stored."""

    shape: tuple[int, ...]
    dtype: StoredType
    scale: float = Field(gt=0)
    zero: int = Field(ge=0)

    @property
    def encoding(self) -> Encoding:
        """How its numbers are stored."""
        return Encoding(self.scale, self.zero, self.dtype)


class GraphSpec(_Strict):
    """One static graph: its QDQ file, inputs and outputs by name."""

    file: str
    inputs: dict[str, PortSpec]
    outputs: dict[str, PortSpec]


class AskSpec(_Strict):
    """The rendered prompt of one question about one picture, in pieces around both."""

    before_picture: str
    between: str
    after: str


class NpuConfig(_Strict):
    """The whole of `npu.json`.

    Attributes:
        tiles: of a call of patch_embed and vision.
        chunk: tokens of a call of prefill.
        capacity: positions of the cache.
        ask: for programs without a template engine.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    tiles: int
    chunk: int
    capacity: int
    graphs: dict[GraphName, GraphSpec]
    vision: VisionSpec
    tiling: TilingSpec
    decoder: DecoderSpec
    prompt: PromptSpec
    embedding: EmbeddingSpec
    ask: AskSpec

    def write(self, folder: Path) -> None:
        """Writes `npu.json` into an export folder."""
        (folder / NPU_CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_npu_config(folder: Path) -> NpuConfig:
    """Reads `npu.json` of an export for an NPU.

    Raises:
        ModelError: the file is missing or broken.
    """
    why = "The static graphs cannot be run without their scales."
    fix = "Export the model again: bluelm export CHECKPOINT --target npu --data CORPUS --out FOLDER --force"
    return read_typed_json(folder / NPU_CONFIG_FILE, NpuConfig, ModelError, unreadable=why, broken=why, fix=fix)
