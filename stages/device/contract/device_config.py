"""`device.json`: all that the runtime needs to know about an exported model, in one typed file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.artifacts.errors import ModelError
from stages.device.contract.names import DEVICE_CONFIG_FILE
from stages.device.contract.tensor_ref import TensorRef
from stages.device.imaging.spec import TilingSpec

# 2: where the rows of the embedding table lie.
SCHEMA_VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionSpec(_Strict):
    """The vision graphs: what they take and give.

    `resample` is Pillow's name of the filter; mean and std are per RGB channel, applied after dividing by 255: by
    patch_embed.onnx where `pixels` is uint8, by who feeds it where it is float32 (exports older than the field).
    """

    tile_size: int
    patch_size: int
    patches_per_tile: int
    tokens_per_tile: int
    vision_width: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    pixels: Literal["uint8", "float32"] = Field(default="float32", description="what patch_embed.onnx takes")
    resample: Literal["bicubic", "bilinear", "lanczos", "nearest"] = "bicubic"
    max_batch: int | None = Field(default=None, description="fixed tiles per batch, or None for any")


class DecoderSpec(_Strict):
    """The decoder graph and its KV cache: [1, num_key_value_heads, capacity, head_dim] per layer, keys and values."""

    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    max_context: int
    kv_dtype: Literal["float32", "int8"]


class PromptSpec(_Strict):
    """Special tokens the runtime must know; the chat template itself is `chat_template.jinja`."""

    image_token: str
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    bos_token: str | None = None


class EmbeddingSpec(_Strict):
    """The embedding table, V rows of H numbers, in the bytes that embedding.onnx (and a tied head) reads.

    | form | values | scales |
    |---|---|---|
    | float32, float16 | [V, H] | |
    | int8 | uint8 [V, G·block], value + 128 | float32 [V, G] |
    | int4 | uint8 [V, G·block/2], low nibble first, value + 8 | float32 [V, G] |

    A row's last block may be padded: H ≤ G·block.
    """

    form: Literal["float32", "float16", "int8", "int4"]
    values: TensorRef
    scales: TensorRef | None = None
    block: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        shape = self.values.shape
        if len(shape) != 2:
            raise ValueError(f"values are {list(shape)}, not rows of a table")
        if self.form in ("float32", "float16"):
            if (self.values.dtype, self.scales, self.block) != (self.form, None, None):
                raise ValueError(f"a {self.form} table has {self.form} values and no scales")
            return self
        if self.scales is None or self.block is None or self.values.dtype != "uint8" or self.scales.dtype != "float32":
            raise ValueError(f"an {self.form} table has uint8 values, float32 scales and a block")
        if self.form == "int4" and self.block % 2:
            raise ValueError(f"a block of {self.block} INT4 values does not fill whole bytes")
        width = self.block if self.form == "int8" else self.block // 2
        if len(self.scales.shape) != 2 or shape != (self.scales.shape[0], self.scales.shape[1] * width):
            raise ValueError(f"values {list(shape)} and scales {list(self.scales.shape)} do not fit a block")
        return self

    def holds(self, rows: int, columns: int) -> bool:
        """Whether this is a table [rows, columns]."""
        if self.scales is None or self.block is None:
            return self.values.shape == (rows, columns)
        return self.scales.shape == (rows, -(-columns // self.block))


class DevicePlan(_Strict):
    """What is known of a model before its weights are on disk."""

    schema_version: int = SCHEMA_VERSION
    name: str
    vision: VisionSpec
    tiling: TilingSpec
    decoder: DecoderSpec
    prompt: PromptSpec

    def written(self, embedding: EmbeddingSpec) -> DeviceConfig:
        """The whole configuration, once the table is on disk."""
        return DeviceConfig(**{name: getattr(self, name) for name in DevicePlan.model_fields}, embedding=embedding)


class DeviceConfig(DevicePlan):
    """The whole of `device.json`."""

    embedding: EmbeddingSpec

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        decoder = self.decoder
        if not self.embedding.holds(decoder.vocab_size, decoder.hidden_size):
            shape = list(self.embedding.values.shape)
            raise ValueError(f"the embedding {shape} is no table [{decoder.vocab_size}, {decoder.hidden_size}]")
        return self

    def write(self, folder: Path) -> None:
        """Writes `device.json` into an export folder."""
        (folder / DEVICE_CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class _Version(BaseModel):
    """The one field that every version of the file has."""

    schema_version: int


def read_device_config(folder: Path) -> DeviceConfig:
    """Reads `device.json` of an exported model.

    Raises:
        ModelError: the file is missing, broken, or of another schema.
    """
    path = folder / DEVICE_CONFIG_FILE
    remake = "Export the model again: bluelm export CHECKPOINT --out FOLDER --force"
    try:
        text = path.read_bytes()  # what is not UTF-8 is no JSON
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}.", "The runtime needs it to run the graphs.", remake
        ) from error
    try:
        version = _Version.model_validate_json(text).schema_version
        if version != SCHEMA_VERSION:
            raise ModelError(
                f"{path}: schema version {version}, this bluelm reads {SCHEMA_VERSION}.",
                "Fields may be missing or mean something else there.",
                remake,
            )
        return DeviceConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        what = first["msg"].removeprefix("Value error, ")
        raise ModelError(
            f"{path}: {where}: {what}.", "The runtime cannot trust a configuration it half understands.", remake
        ) from error
