"""A vision tower apart from its model: where its weights lie, which ones they are, and what it makes of tiles.

Pretraining freezes the tower (Table 7), so what it makes of a picture can be computed once and kept. The digest says
whose features those are: two folders with the same tower (a SigLIP, a checkpoint that began with it) have the same.

T tiles, P patches of a tile, C width of the tower, S side of a tile in pixels.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModel
from transformers.initialization import no_init_weights

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import ModelError, raise_all
from stages.artifacts.folder import open_artifact
from stages.device.imaging.crop import normalize
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.checkpoint import load_processor, weight_problems
from stages.workshop.model.configuration import MODEL_TYPE, BlueLMVConfig
from stages.workshop.model.modeling import tower_features
from stages.workshop.model.public.source import (
    PictureSettings,
    WeightPlace,
    read_json,
    read_shapes,
    read_tensors,
    weights_in,
)
from stages.workshop.model.public.tower import read_picture_settings, read_tower_config, read_tower_weights

_PREFIX = "vision_tower."
# What of a tower's configuration changes its values; the rest are names and notes.
_SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TowerPlace:
    """A tower that lies on disk, none of its weights read yet.

    Attributes:
        folder: of the model.
        config: its `SiglipVisionConfig`.
        layers: encoder layers whose output is used.
        post_layernorm: whether its final LayerNorm is applied.
        spec: how its model tiles pictures.
        pictures: how pixels become its input.
        weights: our parameter name → where it lies.
    """

    folder: Path
    config: Any
    layers: int
    post_layernorm: bool
    spec: TilingSpec
    pictures: PictureSettings
    weights: Mapping[str, WeightPlace]

    @property
    def patches(self) -> int:
        """P."""
        return int(self.config.image_size // self.config.patch_size) ** 2

    @property
    def width(self) -> int:
        """C."""
        return int(self.config.hidden_size)

    def digest(self) -> str:
        """Of all that its features depend on: the weights that are used, their architecture, mean, deviation, filter.

        Weights count as float32, whatever their file holds, since that is what training makes of them.
        """
        whole = hashlib.sha256()
        found = {name: hashlib.sha256(_bytes(tensor)).hexdigest() for name, tensor in read_tensors(self._used())}
        for name in sorted(found):
            whole.update(f"{name} {found[name]}\n".encode())
        return digest_json(
            {
                "weights": whole.hexdigest(),
                "shape": {key: getattr(self.config, key) for key in _SHAPE},
                "layers": self.layers,
                "post_layernorm": self.post_layernorm,
                "mean": list(self.pictures.mean),
                "std": list(self.pictures.std),
                "resample": self.pictures.resample,
            }
        )

    def load(self) -> nn.Module:
        """A `SiglipVisionModel` with float32 weights.

        Raises:
            ModelError: weights are missing, too many, or of another shape.
        """
        with no_init_weights():
            tower: nn.Module = AutoModel.from_config(self.config, dtype=torch.float32)
        targets = {f"{_PREFIX}{name}": value for name, value in tower.state_dict().items()}
        found = read_shapes(self.weights)
        shapes = {name: tuple(value.shape) for name, value in targets.items()}
        problems = {
            "missing_keys": targets.keys() - found.keys(),
            "unexpected_keys": found.keys() - targets.keys(),
            "mismatched_keys": [
                (name, shape, shapes[name]) for name, shape in found.items() if shapes.get(name, shape) != shape
            ],
        }
        raise_all(list(weight_problems(self.folder, problems)))
        with torch.no_grad():
            for name, tensor in read_tensors(self.weights):
                targets[name].copy_(tensor)
        return tower.eval()

    def _used(self) -> dict[str, WeightPlace]:
        def used(name: str) -> bool:
            parts = name.removeprefix(_PREFIX).split(".")
            if parts[:2] == ["encoder", "layers"]:
                return int(parts[2]) < self.layers
            return parts[0] != "post_layernorm" or self.post_layernorm

        return {name: place for name, place in self.weights.items() if used(name)}


def find_tower(folder: Path) -> TowerPlace:
    """The tower of a checkpoint of ours, or of a SigLIP folder.

    Raises:
        BluelmError: the folder holds neither, or is damaged.
    """
    if read_json(folder / "config.json").get("model_type") == MODEL_TYPE:
        return tower_of_checkpoint(folder)
    return tower_of_siglip(folder)


def tower_of_checkpoint(folder: Path) -> TowerPlace:
    """The tower inside a checkpoint of ours. Raises: BluelmError: it is none, or damaged."""
    open_artifact(folder, "checkpoint")
    config = BlueLMVConfig.from_pretrained(folder, local_files_only=True)
    images = load_processor(folder).image_processor
    weights = {name: place for name, place in weights_in(folder).items() if name.startswith(_PREFIX)}
    mean, std = _three(images.image_mean), _three(images.image_std)
    pictures = PictureSettings(mean, std, images.resample)
    return _place(folder, config, images.spec, pictures, weights)


def tower_of_siglip(folder: Path) -> TowerPlace:
    """A SigLIP as pretraining takes it (`--vision`). Raises: BluelmError: it is none, or damaged."""
    tower = read_tower_config(folder)
    config = BlueLMVConfig(vision_config=tower)
    spec = TilingSpec(tile_size=config.tile_size, tokens_per_tile=config.tokens_per_tile)
    return _place(
        folder, config, spec, read_picture_settings(folder), read_tower_weights(folder, tower.num_hidden_layers)
    )


def _place(
    folder: Path, config: BlueLMVConfig, spec: TilingSpec, pictures: PictureSettings, weights: dict[str, WeightPlace]
) -> TowerPlace:
    if not weights:
        raise ModelError(f"{folder} holds no {_PREFIX}* weights.", "There is no tower to encode with.", "Check it.")
    layers, post = config.vision_layers_used, config.vision_post_layernorm
    return TowerPlace(folder, config.vision_config, layers, post, spec, pictures, weights)


class TowerEncoder:
    """A tower at work, as in training: float32 weights, products in `dtype`.

    Args:
        place: where the tower lies.
        batch: tiles that go through it together; tiles of neighbouring pictures share a batch.
        dtype: of the products.
        device: cpu, cuda or cuda:N.
    """

    def __init__(self, place: TowerPlace, batch: int, dtype: Precision = "float32", device: str = "cpu") -> None:
        self._place, self._batch, self._dtype, self._device = place, batch, dtype, torch.device(device)
        self._tower: Any = place.load().to(self._device)

    def encode(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Features [tiles, P, C] of one picture after the other.

        Args:
            pictures: tiles of one picture each, uint8 [tiles, 3, S, S]; drawn as they are needed.
        """
        waiting: deque[int] = deque()  # tiles of the pictures that are not given yet
        tiles: list[NDArray[np.uint8]] = []
        made: list[NDArray[np.float32]] = []
        for picture in pictures:
            waiting.append(len(picture))
            tiles.append(picture)
            while sum(map(len, tiles)) >= self._batch:
                joined = np.concatenate(tiles)
                made.append(self._run(joined[: self._batch]))
                tiles = [joined[self._batch :]] if len(joined) > self._batch else []
                yield from _whole(waiting, made)
        if tiles:
            made.append(self._run(np.concatenate(tiles)))
            yield from _whole(waiting, made)

    def _run(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = normalize(tiles, self._place.pictures.mean, self._place.pictures.std)  # [T, 3, S, S]
        autocast = torch.autocast(self._device.type, torch.bfloat16) if self._dtype == "bfloat16" else nullcontext()
        with torch.inference_mode(), autocast:
            patches = self._tower.embeddings(torch.from_numpy(pixels).to(self._device))  # [T, P, C]
            values = tower_features(self._tower, patches, self._place.layers, self._place.post_layernorm)
        features: NDArray[np.float32] = values.float().cpu().numpy()
        return features


def _whole(waiting: deque[int], made: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The pictures whose tiles are all made, taken out of both."""
    while waiting and sum(map(len, made)) >= waiting[0]:
        joined = np.concatenate(made) if len(made) > 1 else made[0]
        count = waiting.popleft()
        made[:] = [joined[count:]] if len(joined) > count else []
        yield joined[:count]


def _bytes(tensor: torch.Tensor) -> bytes:
    """Shape and float32 values of a weight."""
    values = tensor.to(torch.float32).contiguous().numpy()
    return f"{list(tensor.shape)} ".encode() + values.tobytes()


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
