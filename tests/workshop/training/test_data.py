"""Samples, tiles and batches: what the model is shown and what it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError, BluelmError, DataError, ImageError, RecipeError
from stages.artifacts.events import Notice
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiles_file import TilesIndex, indexed
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.row import Row, Turn
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import IGNORED, BlueLMVProcessor
from stages.workshop.training.batches import Collator, SampleSet
from stages.workshop.training.data import Prepared, prepare, read_rows
from stages.workshop.training.loss import answer_loss, learned_positions, normalize_tiles
from stages.workshop.training.pictures import CutTiles, StoredTiles, Tiled
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.samples import SampleBuilder
from stages.workshop.training.sources import FromCheckpoint, Outline

Make = Callable[..., TrainRecipe]


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> tuple[BlueLMVForConditionalGeneration, BlueLMVProcessor]:
    return load_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def processor(loaded: tuple[BlueLMVForConditionalGeneration, BlueLMVProcessor]) -> BlueLMVProcessor:
    return loaded[1]


@pytest.fixture
def outline(checkpoint: Path) -> Outline:
    return FromCheckpoint(checkpoint).outline(())


def drain(events: Any) -> tuple[Prepared, list[Any]]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return end.value, seen


def talk(name: str, pictures: list[Path], *texts: str) -> Row:
    """A conversation: question, answer, question, answer, …"""
    turns = tuple(Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts))
    return Row(name, turns, tuple(PictureFile.at(path) for path in pictures))


def tiled(path: Path) -> Tiled:
    return Tiled(PictureFile.at(path))


def picture(folder: Path, name: str, size: tuple[int, int]) -> Path:
    path = folder / name
    pixels = np.random.default_rng(len(name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_preparing_reports_every_sample_it_did_not_take_as_it_is(
    micro_recipe: Make, corpus: Path, outline: Outline
) -> None:
    prepared, events = drain(prepare(read_rows(corpus), outline, micro_recipe(sequence_length=29), None))
    notices = [event for event in events if isinstance(event, Notice)]
    assert [notice.level for notice in notices] == ["warning"]
    assert notices[0].text == (
        "8 samples were left out: no answer within 29 tokens: row0, row1, row3, row4, row6 and 3 more"
    )
    assert [sample.name for sample in prepared.samples] == ["row2", "row5", "row8", "row11"]


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"sequence_length": 5}, DataError, "No conversation is left"),
        ({"sequence_length": 129}, RecipeError, "the language model has 128 positions"),
    ],
)
def test_data_that_cannot_be_used_stops_before_training(
    changes: dict[str, Any],
    kind: type[BluelmError],
    what: str,
    micro_recipe: Make,
    corpus: Path,
    outline: Outline,
) -> None:
    with pytest.raises(kind, match=what):
        drain(prepare(read_rows(corpus), outline, micro_recipe(**changes), None))


def test_all_broken_pictures_are_reported_together(micro_recipe: Make, outline: Outline, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = ["broken.png", *[f"missing{number}.png" for number in range(7)]]
    rows = [talk(name, [tmp_path / name], "<image>\nq", "a") for name in names]
    with pytest.raises(BluelmError) as caught:
        drain(prepare(rows, outline, micro_recipe(), None))
    whats = [problem.what for problem in caught.value.problems]
    assert len(whats) == 8
    assert "broken.png" in whats[0]
    assert whats[7] == f"{tmp_path / 'missing6.png'} does not exist."


def test_a_picture_broken_inside_is_found_before_training(micro_recipe: Make, outline: Outline, tmp_path: Path) -> None:
    whole = picture(tmp_path, "whole.png", (64, 64))
    (tmp_path / "torn.png").write_bytes(whole.read_bytes()[:3000])
    rows = [talk(name, [tmp_path / name], "<image>\nq", "a") for name in ("torn.png", "whole.png")]
    with pytest.raises(BluelmError, match=r"torn\.png is a broken picture"):
        drain(prepare(rows, outline, micro_recipe(), None))
    # Where tiles do not fit into memory, only headers are read before training.
    prepared, _ = drain(prepare(rows, outline, micro_recipe(execution={"picture_memory_mb": 0}), None))
    assert len(prepared.samples) == 2


def test_batches_hold_all_tiles_in_the_order_of_the_slots(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    wide, small = picture(tmp_path, "wide.png", (64, 32)), picture(tmp_path, "s.png", (32, 32))
    source = CutTiles(processor.image_processor, spec, budget=10**6)
    builder = SampleBuilder(processor.prompts, 4, 128, source)
    rows = [
        talk("two", [small, wide], "<image><image>\nSay red.", "red"),
        talk("text", [], "Say blue.", "blue"),
        talk("one", [wide], "<image>\nSay red.", "green"),
    ]
    samples = [builder.build(found) for found in rows]
    data = SampleSet([sample for sample in samples if sample is not None], source)
    batch = Collator(pad_token_id=0)(data.__getitems__([0, 1, 2]))
    assert torch.equal(batch["tiles"], torch.cat([source.tiles_of(tiled(path)) for path in (small, wide, wide)]))
    assert batch["tiles"].shape == (1 + 3 + 3, 3, 32, 32)
    assert batch["tiles"].dtype == torch.uint8
    for row, sample in enumerate(data.samples):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        assert ids[: sample.length].tolist() == sample.ids.tolist()
        assert (ids[sample.length :] == 0).all()
        assert (labels != IGNORED).tolist()[: sample.length] == sample.is_answer.tolist()
        assert (labels[sample.length :] == IGNORED).all()
        assert torch.equal(labels[labels != IGNORED], ids[labels != IGNORED])
    one = [Collator(0)([data[row]]) for row in range(3)]
    assert "tiles" not in one[1]
    assert torch.equal(torch.cat([one[0]["tiles"], one[2]["tiles"]]), batch["tiles"])


def test_tiles_are_what_the_image_processor_makes(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    path = picture(tmp_path, "tall.png", (30, 70))
    tiles = CutTiles(processor.image_processor, spec, budget=0).tiles_of(tiled(path))
    processed = processor.image_processor(Image.open(path), max_cols=2, max_rows=2)["pixel_values"]
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    assert np.array_equal(normalize_tiles(tiles, mean, std).numpy(), processed)


def test_tiles_are_kept_while_they_fit(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    one_tile = 3 * 32 * 32
    source = CutTiles(processor.image_processor, TilingSpec(tile_size=32, max_cols=1, max_rows=1), budget=one_tile)
    first, second = picture(tmp_path, "a.png", (20, 20)), picture(tmp_path, "bb.png", (20, 20))
    source.tiles_of(tiled(first))
    source.tiles_of(tiled(second))
    assert (source.holds(tiled(first)), source.holds(tiled(second))) == (True, False)


def tiles_folder(folder: Path, pictures: list[Path], spec: TilingSpec, source: CutTiles) -> Path:
    """A tiles artifact's two files, written with the library's own writer rather than ours."""
    folder.mkdir()
    entries, tensors, first = [], [], 0
    for path in pictures:
        tiling = plan_tiling(Size(*Image.open(path).size), spec)
        entries.append(indexed(path.name, digest_file(path), tiling, spec.alpha, first))
        tensors.append(source.tiles_of(tiled(path)).numpy())
        first += tiling.tiles
    TilesIndex(tiling=spec, images=tuple(entries)).write(folder)
    save_file({"tiles": np.concatenate(tensors)}, folder / "tiles.safetensors")
    return folder


def test_stored_tiles_equal_cut_tiles(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    pictures = [picture(tmp_path, "wide.png", (64, 32)), picture(tmp_path, "s.png", (30, 32))]
    source = CutTiles(processor.image_processor, spec, budget=10**6)
    folder = tiles_folder(tmp_path / "tiles", pictures, spec, source)
    stored = StoredTiles(folder, spec, NothingToCut(processor.image_processor, spec, 0))
    for path in pictures:
        moved = path.rename(tmp_path / f"moved-{path.name}")
        assert stored.holds(tiled(moved))
        assert stored.tile_count(tiled(moved)) == source.tile_count(tiled(moved))
        assert torch.equal(stored.tiles_of(tiled(moved)), source.tiles_of(tiled(path)))
    assert stored.cut_again == 0


class NothingToCut(CutTiles):
    """A fallback that must not be needed."""

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        raise AssertionError(tiled)


def test_pictures_not_stored_as_the_recipe_tiles_them_are_cut_again(
    processor: BlueLMVProcessor, tmp_path: Path
) -> None:
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    wide, small = picture(tmp_path, "wide.png", (64, 32)), picture(tmp_path, "s.png", (30, 32))
    folder = tiles_folder(tmp_path / "tiles", [wide, small], spec, CutTiles(processor.image_processor, spec, 0))
    single = spec.model_copy(update={"max_cols": 1, "max_rows": 1})
    cut = CutTiles(processor.image_processor, single, budget=10**6)
    stored = StoredTiles(folder, single, CutTiles(processor.image_processor, single, budget=10**6))
    other = picture(tmp_path, "other.png", (32, 32))
    for path, again in ((small, 0), (wide, 1), (other, 2)):
        assert stored.tile_count(tiled(path)) == 1
        assert torch.equal(stored.tiles_of(tiled(path)), cut.tiles_of(tiled(path)))
        assert stored.cut_again == again
    with pytest.raises(ImageError, match="does not exist"):
        stored.tile_count(tiled(tmp_path / "nowhere.png"))


def test_tiles_of_another_size_are_refused(processor: BlueLMVProcessor, tmp_path: Path) -> None:
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    source = CutTiles(processor.image_processor, spec, budget=0)
    folder = tiles_folder(tmp_path / "tiles", [picture(tmp_path, "s.png", (30, 32))], spec, source)
    with pytest.raises(ArtifactError, match="tiles of 32 pixels, the model takes 64"):
        StoredTiles(folder, spec.model_copy(update={"tile_size": 64}), source)


def test_the_loss_equals_the_models_own_with_mask_and_all_logits(
    loaded: tuple[BlueLMVForConditionalGeneration, BlueLMVProcessor], tmp_path: Path
) -> None:
    """Learned positions only and no attention mask, against transformers' loss with both."""
    model, processor = loaded
    spec = TilingSpec(tile_size=32, tokens_per_tile=4, max_cols=2, max_rows=2)
    source = CutTiles(processor.image_processor, spec, budget=10**6)
    builder = SampleBuilder(processor.prompts, 4, 128, source)
    wide = picture(tmp_path, "wide.png", (64, 32))
    rows = [
        talk("one", [wide], "<image>\nSay red.", "green"),
        talk("text", [], "Say blue.", "blue", "Say red.", "red red"),
    ]
    samples = [builder.build(found) for found in rows]
    data = SampleSet([sample for sample in samples if sample is not None], source)
    batch = Collator(pad_token_id=0)(data.__getitems__([0, 1]))
    lengths = torch.tensor([sample.length for sample in data.samples])
    mask = (torch.arange(batch["input_ids"].shape[1])[None, :] < lengths[:, None]).long()
    image = processor.image_processor
    pixels = normalize_tiles(batch["tiles"], image.image_mean, image.image_std)
    labels, inputs = batch["labels"], {"input_ids": batch["input_ids"], "pixel_values": pixels}
    items = (labels != IGNORED).sum()
    ours = answer_loss(model, dict(inputs), labels, batch["positions"], items)
    theirs = model(**inputs, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    ours_gradient, theirs_gradient = (
        torch.autograd.grad(loss, model.multi_modal_projector.linear_1.weight)[0] for loss in (ours, theirs)
    )
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-4, atol=1e-7)


def test_learned_positions_are_those_before_a_label() -> None:
    labels = torch.tensor([[-100, -100, 7, 8, -100], [-100, -100, -100, 9, -100]])
    assert learned_positions(labels).tolist() == [1, 2]
