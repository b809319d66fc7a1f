"""A frozen tower's features in the pictures' place: `pretrain --features`.

The same samples in the same batches; where tiles uint8 [tiles, 3, S, S] would come, the features of the very tower that
the model has, float16 [tiles, P, C], come from disk, and the model goes on with its connector. Whatever would make
another loss of that than float16's rounding is refused before the first step.

P patches of a tile, C width of the tower.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stages.artifacts.errors import ArtifactError, BluelmError, ImageError, RecipeError, UsageError, raise_all
from stages.artifacts.events import Notice
from stages.artifacts.folder import open_artifact
from stages.device.contract.feature_shards import (
    KIND,
    TENSOR,
    FeatureCorpus,
    read_feature_corpus,
    read_shard_index,
    shard_file,
)
from stages.device.imaging.spec import TilingSpec
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.public.places import place_of
from stages.workshop.model.tower import TowerPlace, tower_of_checkpoint, tower_of_siglip
from stages.workshop.training.parameters import ParameterPlan
from stages.workshop.training.parts import FromParts
from stages.workshop.training.pictures import Tiled
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint, Outline, Source

TOWER = "vision_tower"
# Digests, and open shards, that are remembered.
_REMEMBERED, _OPEN = 1 << 20, 64


class StoredFeatures:
    """Features of pictures, found by the pictures' content and read as they are needed (shards are mapped).

    Args:
        folder: a `vit-features` artifact.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus: FeatureCorpus = read_feature_corpus(folder)
        # Digest of a picture → its shard, its first tile there, its tiles.
        self._places: dict[bytes, tuple[int, int, int]] = {}
        for number in range(self.corpus.shards):
            for picture in read_shard_index(folder, number).pictures:
                self._places[bytes.fromhex(picture.sha256)] = (number, picture.first_tile, picture.tiles)
        self._broken = {broken.name: broken.problem for broken in self.corpus.broken}
        self._place = functools.lru_cache(maxsize=_REMEMBERED)(self._find)
        self._shard = functools.lru_cache(maxsize=_OPEN)(self._open)

    def tile_count(self, tiled: Tiled) -> int:
        """Raises: ImageError: the picture is not among the features."""
        return self._place(tiled)[2]

    def coarser(self, tiled: Tiled) -> Tiled | None:
        """None: there are no features of another grid."""
        return None

    def holds(self, tiled: Tiled) -> bool:
        """Never: the disk is read by several at a time."""
        return False

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        """Its features, float16 [tiles, P, C].

        Raises:
            ArtifactError: a shard is damaged.
        """
        number, first, count = self._place(tiled)
        features: torch.Tensor = self._shard(number)[first : first + count]
        return features

    def _find(self, tiled: Tiled) -> tuple[int, int, int]:
        picture = tiled.picture
        place = self._places.get(bytes.fromhex(picture.digest()))
        if place is None:
            why = self._broken.get(
                picture.name, "It was not among the pictures that were encoded, or has changed since."
            )
            raise ImageError(
                f"{picture.name} is not among the features in {self.folder}.",
                why,
                "Encode all pictures of this data, held-out ones too: bluelm encode MODEL DATA… --before-connector",
            )
        return place

    def _open(self, number: int) -> Any:
        path = shard_file(self.folder, number)
        try:
            return safe_open(str(path), framework="pt").get_slice(TENSOR)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{path} cannot be read: {error}.",
                "It holds pictures' features.",
                "Encode the pictures again, --force.",
            ) from error


def open_features(
    folder: Path, source: Source, outline: Outline, recipe: TrainRecipe, plans: Iterable[ParameterPlan]
) -> StoredFeatures:
    """Features that are what this model's tower would make of the pictures.

    Raises:
        BluelmError: the tower learns, or has another digest; another tiling; a recipe that features cannot follow; all
            of it together.
    """
    open_artifact(folder, KIND)
    stored = StoredFeatures(folder)
    spec = recipe.tiling.spec(outline.processor.image_processor.spec)
    problems = [
        *_trained(plans),
        *_recipe_problems(recipe, spec),
        *_tiling_problems(folder, stored.corpus, spec),
        *_encoder_problems(folder, stored.corpus, source),
    ]
    raise_all(problems)
    return stored


def rounding_notice(stored: StoredFeatures) -> Iterator[Notice]:
    """A warning where the features are an exported model's."""
    if stored.corpus.encoder.kind == "onnx":
        yield Notice(
            f"The features in {stored.folder} were made by an exported model, which may round: the loss is not quite "
            "that of training from pictures.",
            "warning",
        )


def without_tower(model: BlueLMVForConditionalGeneration) -> None:
    """Takes the tower out of a model: its features come from disk, and its memory is free for other things."""
    setattr(model, TOWER, None)


def with_tower(model: BlueLMVForConditionalGeneration, source: Source) -> None:
    """Puts the tower back where it was taken out, as it lies on disk; a whole model is left as it is."""
    if getattr(model, TOWER) is None:
        setattr(model, TOWER, tower_of(source).load())


def tower_of(source: Source) -> TowerPlace:
    """Where the tower of a model to be trained lies.

    Raises:
        UsageError: nowhere: its weights are random.
    """
    if isinstance(source, FromCheckpoint):
        return tower_of_checkpoint(source.path)
    if isinstance(source, FromParts):
        return tower_of_siglip(place_of(source.vision).whole())
    raise UsageError(
        "--features with a preset: its tower starts from random weights.",
        "Features are those of a tower that lies on disk.",
        "Start from a checkpoint (--from) or from parts (--vision and --llm), or leave --features away.",
    )


def _trained(plans: Iterable[ParameterPlan]) -> Iterator[BluelmError]:
    learned = [plan for plan in plans if plan.part == TOWER and plan.trained]
    if learned:
        yield RecipeError(
            f"The recipe trains the tower ({len(learned)} of its parameters, such as {learned[0].name}).",
            "Its features change with every step; those on disk do not.",
            f"Freeze it (no {TOWER}.* in trained, nor *), or leave --features away.",
        )


def _recipe_problems(recipe: TrainRecipe, spec: TilingSpec) -> Iterator[BluelmError]:
    if recipe.too_long == "shrink_tiling" and spec.tile_budget > 1:
        yield RecipeError(
            "too_long is shrink_tiling.",
            "A picture cut into fewer tiles has other features than those on disk.",
            "Set too_long to cut_text or drop, or leave --features away.",
        )
    if recipe.execution.sharding == "fsdp2":
        yield RecipeError(
            "execution.sharding is fsdp2.",
            "Sharded processes gather the tower together, which is not there with features.",
            "Set execution.sharding to none: without its tower and with little that learns a model is smaller anyway.",
        )


def _tiling_problems(folder: Path, corpus: FeatureCorpus, spec: TilingSpec) -> Iterator[BluelmError]:
    wanted, found = (
        {key: value for key, value in each.model_dump(mode="json").items() if key != "tokens_per_tile"}
        for each in (spec, corpus.tiling)
    )
    if wanted["max_tiles"] is not None and wanted["max_tiles"] == found["max_tiles"]:
        # A number of tiles hides the box.
        wanted |= {key: found[key] for key in ("max_cols", "max_rows")}
    different = [key for key in wanted if wanted[key] != found[key]]
    if different:
        said = ", ".join(f"{key} {found[key]}, not {wanted[key]}" for key in different)
        flags = " ".join(f"--set tiling.{key}={wanted[key]}" for key in different if key != "tile_size")
        yield ArtifactError(
            f"{folder} was encoded with another tiling than the recipe's: {said}.",
            "The pictures would have other tiles than this training cuts.",
            f"Encode them as the recipe tiles: bluelm encode MODEL DATA --before-connector {flags}".rstrip(),
        )


def _encoder_problems(folder: Path, corpus: FeatureCorpus, source: Source) -> Iterator[BluelmError]:
    encoder = corpus.encoder
    fix = "Encode the pictures with the model that you start from: bluelm encode MODEL DATA --before-connector"
    try:
        tower = tower_of(source)
        if encoder.kind == "onnx":
            if {parent.digest for parent in source.parents()}.isdisjoint(encoder.made_of):
                yield ArtifactError(
                    f"{folder} was encoded by an exported model ({encoder.digest[:12]}) of another checkpoint.",
                    "Its features mean nothing to this connector.",
                    fix,
                )
            return
        digest = tower.digest()
    except BluelmError as error:
        yield error
        return
    if digest != encoder.digest:
        yield ArtifactError(
            f"{folder} was encoded by another tower ({encoder.digest[:12]}, not {digest[:12]}).",
            "Other weights, or another mean, deviation or filter, make other features.",
            fix,
        )
