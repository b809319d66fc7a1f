"""A SigLIP folder as the vision tower: SigLIP, or SigLIP 2 in its fixed-resolution form, whole model or tower alone.

Fixed-resolution SigLIP 2 is published with SigLIP's own architecture (model type `siglip`). NaFlex, its other form,
takes pictures of any number of patches: there is no one size of tile for it. Source: transformers, `models/siglip{,2}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import SiglipVisionConfig

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.device.imaging.spec import Resample
from stages.workshop.model.public.source import (
    PictureSettings,
    WeightPlace,
    picture_settings,
    read_json,
    read_json_if_there,
    tower_weights,
    weights_in,
)

_SIGLIP = ("siglip", "siglip_vision_model")
_SIGLIP2 = ("siglip2", "siglip2_vision_model")
_INSIDE_WHOLE = "vision_model."
_FIX = "Give a SigLIP folder, or a SigLIP 2 of fixed resolution, such as siglip2-so400m-patch14-384."


def read_tower_config(folder: Path) -> SiglipVisionConfig:
    """The tower's configuration, without the pooling head, which answers never see.

    Raises:
        ModelError: another architecture, NaFlex, or sizes that make no square grid of patches.
    """
    whole = read_json(folder / "config.json")
    vision = whole.get("vision_config", whole)
    raise_all(list(_problems(folder, whole, vision)))
    fields = {key: value for key, value in vision.items() if key not in ("model_type", "architectures")}
    try:
        return SiglipVisionConfig.from_dict({**fields, "vision_use_head": False})
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder / 'config.json'}: {first}", "It says what the tower is made of.", _FIX) from error


def read_tower_weights(folder: Path, layers: int) -> dict[str, WeightPlace]:
    """Where the tower's weights lie, by our names (`vision_tower.…`).

    Raises:
        ModelError: no safetensors, or damaged ones.
    """
    weights = weights_in(folder)
    whole = any(name.startswith(_INSIDE_WHOLE) for name in weights)
    return tower_weights(
        {name: place for name, place in weights.items() if not whole or name.startswith(_INSIDE_WHOLE)}, layers
    )


def read_picture_settings(folder: Path) -> PictureSettings:
    """Mean, deviation and filter from the tower's own preprocessor; SigLIP's where it has none.

    Raises:
        ModelError: its file is broken.
    """
    path = folder / "preprocessor_config.json"
    settings = read_json_if_there(path)
    settings = settings or read_json_if_there(folder / "processor_config.json").get("image_processor", {})
    try:
        found = picture_settings(settings)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: image_mean is {settings.get('image_mean')}, image_std is {settings.get('image_std')}.",
            "They say how pixels become numbers: one of each per colour.",
            "Copy the file again from the published model.",
        ) from error
    if not all(math.isfinite(value) for value in (*found.mean, *found.std)) or min(found.std) <= 0:
        raise ModelError(
            f"{path}: image_mean is {found.mean}, image_std is {found.std}.",
            "Pixels would become numbers that are none.",
            "Copy the file again from the published model.",
        )
    return found


def write_picture_settings(
    folder: Path, side: int, mean: Sequence[float], std: Sequence[float], resample: Resample
) -> None:
    """Writes the `preprocessor_config.json` of a SigLIP folder, as `read_picture_settings` reads it.

    Args:
        folder: the tower's.
        side: of its pictures, in pixels.
        mean, std: of values in 0…1, per RGB channel.
        resample: Pillow's name of the filter.
    """
    settings = {
        "image_processor_type": "SiglipImageProcessor",
        "image_mean": list(mean),
        "image_std": list(std),
        "resample": int(Image.Resampling[resample.upper()]),
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _problems(folder: Path, whole: Mapping[str, Any], vision: Mapping[str, Any]) -> Iterator[BluelmError]:
    kind = vision.get("model_type") or whole.get("model_type")
    if kind in _SIGLIP2 and "image_size" not in vision:
        yield ModelError(
            f"{folder} is a NaFlex SigLIP 2.",
            "It sees pictures of any number of patches; here every tile is a square of one size.",
            "Give the fixed-resolution form of it, such as siglip2-so400m-patch14-384 instead of -patch16-naflex.",
        )
        return
    if kind not in (*_SIGLIP, *_SIGLIP2):
        yield ModelError(f"{folder} is a {kind}.", "The vision tower is a SigLIP model.", _FIX)
        return
    for key in ("image_size", "patch_size"):
        value = vision.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield ModelError(f"{folder / 'config.json'}: {key} is {value!r}.", "Tiles and patches are squares.", _FIX)
