"""From a corpus folder to samples: conversations read, pictures measured, everything tokenized, all of it checked."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.errors import DataError, RecipeError
from stages.artifacts.events import Notice, Progress
from stages.device.imaging.reading import make_all, use_all
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import RowSource, all_rows
from stages.workshop.corpus.row import Row
from stages.workshop.training.pictures import CutTiles, StoredTiles, Tiled, TileSource
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sample_report import SampleReport
from stages.workshop.training.samples import Sample, SampleBuilder
from stages.workshop.training.sources import Outline
from stages.workshop.training.stream import Told

_MEGABYTE = 10**6
_PROGRESS_EVERY = 500


@dataclass(frozen=True)
class Prepared:
    """All there is to learn: samples, where their tiles come from, and what became of the corpus."""

    samples: Sequence[Sample]
    tiles: TileSource
    report: SampleReport


def read_rows(data: RowSource | Path) -> list[Row]:
    """The conversations to learn from: of a source, or of whatever a path names.

    Raises:
        DataError: there are none, or some cannot be used (all of them together).
    """
    source = open_rows(data) if isinstance(data, Path) else data
    rows = all_rows(source)
    if not rows:
        raise DataError(
            f"{source.path} holds no conversation.",
            "There is nothing to learn from.",
            "Render or gather a larger corpus.",
        )
    return rows


def texts_of(rows: Iterable[Row]) -> Iterator[str]:
    """Every text of the conversations, for a tokenizer to learn from."""
    for row in rows:
        for message in row.messages():
            yield from (part["text"] for part in message["content"] if part["type"] == "text")


def prepare(
    rows: Sequence[Row], outline: Outline, recipe: TrainRecipe, tiles: Path | TileSource | None, *, cut: bool = True
) -> Generator[Told, None, Prepared]:
    """Measures all pictures and tokenizes all conversations.

    Args:
        rows: the conversations.
        outline: the model's configuration and processor, which takes the recipe's tiling over.
        recipe: how pictures are tiled, how long a sample may be.
        tiles: a tiles artifact, or what stands in its place (features), or None to cut the pictures here.
        cut: cut all pictures now where their tiles fit into memory, so that a broken one is found before training.

    Raises:
        DataError: no conversation is left, or pictures are missing or broken (all of them together).
        RecipeError: the sequences are longer than the model's positions.
    """
    check_positions(outline, recipe)
    source = tile_source(outline, recipe, tiles, recipe.execution.picture_memory_mb * _MEGABYTE)
    yield from _measure(rows, source, cut)
    builder = sample_builder(outline, recipe, source, SampleReport())
    samples: list[Sample] = []
    for index, row in enumerate(rows):
        if index % _PROGRESS_EVERY == 0:
            yield Progress("reading conversations", index, len(rows), "conversations")
        sample = builder.build(row)
        if sample is not None:
            samples.append(sample)
    yield Progress("reading conversations", len(rows), len(rows), "conversations")
    for line in builder.report.warnings(recipe.sequence_length):
        yield Notice(line, "warning")
    if not samples:
        raise DataError(
            "No conversation is left to learn from.",
            f"All {len(rows)} are too long or hold no answer.",
            "Raise sequence_length, allow fewer tiles, or check the corpus.",
        )
    return Prepared(samples, source, builder.report)


def tile_source(outline: Outline, recipe: TrainRecipe, tiles: Path | TileSource | None, budget: int) -> TileSource:
    """Where the tiles of this training come from; the processor takes the recipe's tiling over.

    Args:
        outline: the model's configuration and processor.
        recipe: how pictures are tiled.
        tiles: a tiles artifact, or what stands in its place, or None to cut the pictures here.
        budget: bytes of tiles kept in memory.

    Raises:
        ArtifactError: the folder's tiles are of another size.
    """
    pictures = outline.processor.image_processor
    # The checkpoint keeps the tiling it is trained with.
    spec = recipe.tiling.spec(pictures.spec)
    pictures.tiling = spec.model_dump(mode="json")
    if tiles is not None and not isinstance(tiles, Path):
        return tiles
    cutter = CutTiles(pictures, spec, budget)
    return cutter if tiles is None else StoredTiles(tiles, spec, cutter)


def sample_builder(outline: Outline, recipe: TrainRecipe, source: TileSource, report: SampleReport) -> SampleBuilder:
    """Makes samples as the recipe says."""
    processor = outline.processor
    tokens_per_tile = processor.image_processor.spec.tokens_per_tile
    return SampleBuilder(processor.prompts, tokens_per_tile, recipe.sequence_length, source, recipe.too_long, report)


def _measure(rows: Sequence[Row], source: TileSource, cut: bool) -> Generator[Told, None, None]:
    """Reads the header of every picture; cuts them as well where `cut` says so and memory holds their tiles.

    Raises:
        ImageError: broken pictures, together.
    """
    pictures = [Tiled(picture) for picture in dict.fromkeys(picture for row in rows for picture in row.pictures)]
    counts = yield from make_all("measuring pictures", source.tile_count, pictures)
    if isinstance(source, StoredTiles) and source.cut_again:
        yield Notice(
            f"{source.cut_again} of {len(pictures)} pictures are not among the given tiles as this recipe tiles them; "
            "they are cut again."
        )
    if isinstance(source, CutTiles) and cut and source.fits(sum(counts)):
        yield from use_all("cutting pictures", source.tiles_of, pictures, lambda kept: None)


def check_positions(outline: Outline, recipe: TrainRecipe) -> None:
    """Sequences must fit the language model's positions.

    Raises:
        RecipeError: they do not.
    """
    positions = getattr(outline.config.text_config, "max_position_embeddings", None)
    if positions is not None and recipe.sequence_length > positions:
        raise RecipeError(
            f"sequence_length is {recipe.sequence_length}, the language model has {positions} positions.",
            "Tokens beyond them mean nothing to it.",
            f"Set sequence_length to {positions} or less.",
        )
