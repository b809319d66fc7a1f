"""A device as data: what it reaches, what its runtime takes beside the model, where each number is from.

name: this machine
memory_gb: 24
speeds: {vision_products: 6.1e11, …}       operations or bytes a second; what is not known is left out
memory: {process_mb: 75, packed: 1.07, …}
fitted: [load, encode, prefill, decode]    what of it was fitted on measurements of this very device
sources: {read_bytes: "…"}
unknown: ["…"]
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, PositiveFloat

from stages.artifacts.atomic_file import write_atomically
from stages.artifacts.recipes import RecipeModel, load_config, recipe_path, recipes_folder


class Speeds(RecipeModel):
    """Operations or bytes a second; None where nobody knows.

    Attributes:
        vision_products: 8-bit operations of the tower's Linears.
        vision_attention: of its attention, and with it of everything that grows as the patches do.
        text_products: 8-bit operations of the language model's Linears, many rows at once.
        text_attention: of its attention over a prompt.
        expansion: weights a second that a prompt's reading unpacks (once a layer).
        read_bytes: of memory, by all cores together.
        layer_steps: layers a second that decoding could do if memory cost nothing.
    """

    vision_products: PositiveFloat | None = None
    vision_attention: PositiveFloat | None = None
    text_products: PositiveFloat | None = None
    text_attention: PositiveFloat | None = None
    expansion: PositiveFloat | None = None
    read_bytes: PositiveFloat | None = None
    layer_steps: PositiveFloat | None = None


class Overheads(RecipeModel):
    """Memory that a runtime takes beside weights, KV cache and hidden states, MB being 10^6 bytes.

    Attributes:
        process_mb: program and libraries before a model is loaded.
        packed: resident bytes for each stored byte of weights.
        load_spike: of the largest weight, held twice while it is laid out.
        tile_mb: activations of one tile of a batch.
        repeat_mb: the same for a second batch of the same size, times the passes of its products: runtimes keep a plan
            of the first one's memory and lay it out anew.
        kept_mb: what stays of encoding after the tower is freed.
        prefill_mb: of reading a prompt, whatever its length.
        chunk_mb: activations of one token of a chunk, times the passes of its products.
    """

    process_mb: float = Field(default=0, ge=0)
    packed: float = Field(default=1, ge=0)
    load_spike: float = Field(default=0, ge=0)
    tile_mb: float = Field(default=0, ge=0)
    repeat_mb: float = Field(default=0, ge=0)
    kept_mb: float = Field(default=0, ge=0)
    prefill_mb: float = Field(default=0, ge=0)
    chunk_mb: float = Field(default=0, ge=0)


class Device(RecipeModel):
    """One device; `memory` is None where its runtime's own memory is unknown and only the model's parts are told.

    `expands` says that prompts are read with weights unpacked to INT8, one layer at a time, as our CPU runtime does;
    `int16_passes`, how many 8-bit products one with INT16 inputs costs (there 2, on the paper's NPU 1: Sec. 3.4);
    `negligible`, speeds that are not named since a fit found that what they stand for takes no time of its own.
    """

    name: str
    memory_gb: PositiveFloat | None = None
    expands: bool = False
    int16_passes: float = Field(default=1, ge=1)
    speeds: Speeds = Speeds()
    memory: Overheads | None = None
    negligible: tuple[str, ...] = ()
    fitted: tuple[str, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def device_names() -> list[str]:
    """The devices that come with bluelm."""
    return sorted(path.stem for path in (recipes_folder() / "devices").glob("*.yaml"))


def read_device(name: str) -> Device:
    """A device by name, or from a file.

    Raises:
        RecipeError: there is neither, or the file is no description of a device.
    """
    shipped = f"devices/{name}.yaml"
    path = recipe_path(name if Path(name).suffix == ".yaml" else shipped)
    return load_config(Device, str(path), (), {})


def write_device(path: Path, device: Device) -> None:
    """Writes a description."""
    content = device.model_dump(mode="json", exclude_none=True)
    for name in ("fitted", "unknown", "negligible"):
        content[name] = list(getattr(device, name))
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))
