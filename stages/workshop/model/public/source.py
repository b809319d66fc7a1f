"""A public checkpoint as our parts see it: what its folders say, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from stages.artifacts.errors import ModelError
from stages.artifacts.plain_json import parse_json
from stages.device.imaging.spec import Resample
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.public.packed_weights import PARTS, Packing, packing_of

if TYPE_CHECKING:
    import torch

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# Pillow's numbers, which transformers writes.
_FILTERS: dict[Any, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_PICKLES = ("*.bin", "*.pt", "*.pth")
# Reads only tensors out of a pickle: nothing in it is run.
CONVERT = (
    'python -c "import glob, torch; from safetensors.torch import save_file; '
    "save_file({k: v.clone() for f in glob.glob('pytorch_model*.bin') "
    "for k, v in torch.load(f, weights_only=True).items()}, 'model.safetensors', {'format': 'pt'})\""
)


@dataclass(frozen=True)
class WeightPlace:
    """Where a weight lies: a safetensors file and its name there; it is multiplied by `factor` when it is read."""

    file: Path
    key: str
    factor: float = 1.0


@dataclass(frozen=True)
class PackedPlace(WeightPlace):
    """Where the integers of a Linear lie that another program quantized: `key` is its qweight, `parts` all of them."""

    packing: Packing | None = None
    parts: tuple[tuple[str, Path, str], ...] = ()

    def read(self) -> torch.Tensor:
        """The float weight [N, K] they stand for, in float32."""
        assert self.packing is not None
        tensors = {}
        for name, file, key in self.parts:
            with safe_open(file, framework="pt") as opened:
                tensors[name] = opened.get_tensor(key)
        return self.packing.unpack(tensors)


@dataclass(frozen=True)
class PictureSettings:
    """What the source's own image processor says."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: Resample = "bicubic"


@dataclass(frozen=True)
class PublicModel:
    """A public checkpoint, read but not loaded.

    Attributes:
        layout: its name, for people.
        config: our configuration of the same computation.
        weights: our parameter name → where it lies.
        tokenizer_folder: where the tokenizer's files are.
        pictures: the image processor's settings.
        chat_templates: templates the source brings, the likeliest first.
        generation: its generation_config.json, or nothing.
        notes: what was left out, and why that changes nothing or something.
    """

    layout: str
    config: BlueLMVConfig
    weights: Mapping[str, WeightPlace]
    tokenizer_folder: Path
    pictures: PictureSettings
    chat_templates: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a public folder.

    Raises:
        ModelError: it is missing or broken.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.",
            "It says what the model is made of.",
            "Download the whole folder again, sub-folders included.",
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object.", "It says what the model is made of.", "Download it again.")
    return value


def read_config(folder: Path) -> Any:
    """transformers' configuration of a folder.

    Raises:
        ModelError: it is missing, broken, or of a model transformers does not know.
    """
    values = read_json(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'}: transformers cannot use it: {str(error).strip().splitlines()[0]}",
            "It says what the model is made of.",
            "Use a model whose type this version of transformers knows, without remote code.",
        ) from error
    if packing_of(folder, values.get("quantization_config")) is not None:
        # Its weights are read as what they stand for.
        del config.quantization_config
    return config


def read_json_if_there(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing when there is no such file. Raises: as `read_json`."""
    return read_json(path) if path.is_file() else {}


def weights_in(folder: Path) -> dict[str, WeightPlace]:
    """Every weight of a folder's safetensors files; those of GPTQ and AWQ checkpoints as what they stand for.

    Raises:
        ModelError: there are none, only pickles, or a file is missing or damaged.
    """
    places: dict[str, WeightPlace] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                places.update({key: WeightPlace(file, key) for key in opened.keys()})  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{file} cannot be read: {error}.", "Its weights would be missing.", "Download it again."
            ) from error
    packing = packing_of(folder, read_json_if_there(folder / "config.json").get("quantization_config"))
    return places if packing is None else _unpacked(places, packing)


def _unpacked(places: Mapping[str, WeightPlace], packing: Packing) -> dict[str, WeightPlace]:
    """`X.weight` for each module that has an `X.qweight`, all else as it is."""
    modules = [key.removesuffix(".qweight") for key in places if key.endswith(".qweight")]
    own = {f"{module}.{part}" for module in modules for part in PARTS}
    found = {key: place for key, place in places.items() if key not in own}
    for module in modules:
        there = [(part, place) for part in PARTS if (place := places.get(f"{module}.{part}")) is not None]
        parts = tuple((part, place.file, place.key) for part, place in there)
        head = places[f"{module}.qweight"]
        found[f"{module}.weight"] = PackedPlace(head.file, head.key, packing=packing, parts=parts)
    return found


def read_tensors(weights: Mapping[str, WeightPlace]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight with its name, file by file, one in memory at a time; factors are applied in float32."""
    by_file: dict[Path, dict[str, WeightPlace]] = {}
    for name, place in weights.items():
        by_file.setdefault(place.file, {})[name] = place
    for file, places in by_file.items():
        with safe_open(file, framework="pt") as opened:
            for name, place in places.items():
                tensor = place.read() if isinstance(place, PackedPlace) else opened.get_tensor(place.key)
                yield name, tensor if place.factor == 1 else tensor.float() * place.factor


def read_shapes(weights: Mapping[str, WeightPlace]) -> dict[str, tuple[int, ...]]:
    """Every weight's shape, from the headers of the files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in dict.fromkeys(place.file for place in weights.values()):
        with safe_open(file, framework="pt") as opened:
            shapes.update(
                {
                    name: _shape(place, tuple(opened.get_slice(place.key).get_shape()))
                    for name, place in weights.items()
                    if place.file == file
                }
            )
    return shapes


def _shape(place: WeightPlace, stored: tuple[int, ...]) -> tuple[int, ...]:
    packing = place.packing if isinstance(place, PackedPlace) else None
    return stored if packing is None else packing.shape(stored)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        names: Iterable[str] = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
        return [folder / Path(name).name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder} holds its weights as {', '.join(pickles)}.",
            "Pickles can run any code when they are opened, so they never are.",
            f"Get the safetensors version of this checkpoint, or convert it in its folder: {CONVERT}",
        )
    raise ModelError(
        f"{folder} has no {_SINGLE}.", "Without weights there is no model.", "Download the whole folder again."
    )


def picture_settings(settings: Mapping[str, Any]) -> PictureSettings:
    """Mean, deviation and filter of a preprocessor_config.json; SigLIP's own where it says nothing."""
    return PictureSettings(
        mean=_three(settings.get("image_mean"), 0.5),
        std=_three(settings.get("image_std"), 0.5),
        resample=_FILTERS.get(settings.get("resample"), "bicubic"),
    )


def _three(values: Any, default: float) -> tuple[float, float, float]:
    red, green, blue = values or (default, default, default)
    return float(red), float(green), float(blue)


def tower_weights(weights: Mapping[str, WeightPlace], layers: int) -> dict[str, WeightPlace]:
    """SigLIP weights under our names: without the old `vision_model.` level, the pooling head and unused layers."""
    ours: dict[str, WeightPlace] = {}
    for key, place in weights.items():
        name = key.removeprefix("vision_model.")
        parts = name.split(".")
        unused = parts[:2] == ["encoder", "layers"] and int(parts[2]) >= layers
        if parts[0] != "head" and not unused and name != "embeddings.position_ids":
            ours[f"vision_tower.{name}"] = place
    return ours


def tower_notes(layers_there: int, layers_used: int) -> tuple[str, ...]:
    """What `tower_weights` left out, in words."""
    if layers_there == layers_used:
        return ()
    return (f"The tower's last {layers_there - layers_used} of {layers_there} layers are never used: left out.",)
