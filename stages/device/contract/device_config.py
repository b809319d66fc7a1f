"""`device.json`: all that the runtime needs to know about an exported model, in one typed file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.artifacts.errors import ModelError
from stages.device.contract.names import DEVICE_CONFIG_FILE
from stages.device.imaging.spec import TilingSpec

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionSpec(_Strict):
    """The vision graphs: what they take and give.

    `resample` is Pillow's name of the filter; mean and std are per RGB channel, applied after dividing by 255.
    """

    tile_size: int
    patch_size: int
    patches_per_tile: int
    tokens_per_tile: int
    vision_width: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
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


class DeviceConfig(_Strict):
    """The whole of `device.json`."""

    schema_version: int = SCHEMA_VERSION
    name: str
    vision: VisionSpec
    tiling: TilingSpec
    decoder: DecoderSpec
    prompt: PromptSpec

    def write(self, folder: Path) -> None:
        """Writes `device.json` into an export folder."""
        (folder / DEVICE_CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_device_config(folder: Path) -> DeviceConfig:
    """Reads `device.json` of an exported model.

    Raises:
        ModelError: the file is missing, broken, or of another schema.
    """
    path = folder / DEVICE_CONFIG_FILE
    remake = "Export the model again: bluelm export CHECKPOINT --out FOLDER --force"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}.", "The runtime needs it to run the graphs.", remake
        ) from error
    try:
        config = DeviceConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(
            f"{path}: {where}: {first['msg']}.", "The runtime cannot trust a configuration it half understands.", remake
        ) from error
    if config.schema_version != SCHEMA_VERSION:
        raise ModelError(
            f"{path}: schema version {config.schema_version}, this bluelm reads {SCHEMA_VERSION}.",
            "Fields may mean something else there.",
            remake,
        )
    return config
