"""The encode pipeline: batches, overlap, order; pipelined and sequential give the same bits."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.numpy_helper import to_array

from stages.artifacts.errors import ImageError, ModelError, UsageError
from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.batches import batches
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.timeline import Span, Timeline, hidden_seconds


def encoder_of(folder: Path, **options: Any) -> ImageEncoder:
    return ImageEncoder(folder, read_device_config(folder), threads=1, **options)


def pictures_of(*counts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8) for count in counts]


def weights_of(folder: Path, file: str) -> dict[str, np.ndarray]:
    return {item.name: to_array(item).astype(np.float64) for item in onnx.load(folder / file).graph.initializer}


def reference(folder: Path, tiles: np.ndarray) -> np.ndarray:
    """The handmade vision tower in numpy: [tiles, t, H]."""
    vision = weights_of(folder, names.VISION_FILE)
    kernel = weights_of(folder, names.PATCH_EMBED_FILE)["kernel"]
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.5, 0.25, 0.2])
    pixels = (tiles / 255 - mean[:, None, None]) / std[:, None, None]
    patches = pixels.reshape(-1, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 16, 48)
    mixed = np.tanh(patches @ kernel.reshape(24, 48).T @ vision["block"])
    return mixed.reshape(-1, 4, 96) @ vision["connect"]


@pytest.mark.parametrize("batch", [None, 4])
def test_a_graph_that_normalizes_is_given_the_bytes(make_model: Callable[..., Path], batch: int | None) -> None:
    """An older export takes normalized floats; both give the same features."""
    pictures = pictures_of(5, 1)
    older, newer = (make_model(batch=batch, pixels=pixels) for pixels in ("float32", "uint8"))
    assert read_device_config(newer).vision.pixels == "uint8"
    for one, other, tiles in zip(
        encoder_of(older).encode(pictures), encoder_of(newer).encode(pictures), pictures, strict=True
    ):
        np.testing.assert_allclose(other.values, one.values, rtol=0, atol=2e-6)
        np.testing.assert_allclose(other.values, reference(newer, tiles), rtol=0, atol=1e-5)


def test_an_export_that_says_nothing_takes_floats(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model()
    config = json.loads((folder / names.DEVICE_CONFIG_FILE).read_text())
    del config["vision"]["pixels"]
    (tmp_path / names.DEVICE_CONFIG_FILE).write_text(json.dumps(config))
    assert read_device_config(tmp_path) == read_device_config(folder)


@pytest.mark.parametrize("batch", [1, 2, 4, 9, 100])
@pytest.mark.parametrize("output", ["image_features", "vit_features"])
def test_pipelined_equals_sequential_bit_for_bit(handmade: Path, batch: int, output: Any) -> None:
    pictures = pictures_of(9, 1, 5, 2)
    pipelined = list(encoder_of(handmade, batch=batch).encode(pictures, output))
    sequential = list(encoder_of(handmade, batch=batch, pipeline=False).encode(pictures, output))
    assert [len(item.values) for item in pipelined] == [9, 1, 5, 2]
    for one, other in zip(pipelined, sequential, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert one.batches == other.batches


@pytest.mark.parametrize("batch", [None, 3])
def test_features_equal_numpy_whatever_the_batch(make_model: Callable[..., Path], batch: int | None) -> None:
    folder = make_model(batch=batch)
    pictures = pictures_of(9, 1, 5)
    encoder = encoder_of(folder, batch=4)
    assert encoder.batch == (batch or 4)
    for tiles, encoded in zip(pictures, encoder.encode(pictures), strict=True):
        np.testing.assert_allclose(encoded.values, reference(folder, tiles), rtol=1e-4, atol=1e-4)


def test_a_picture_gives_the_same_bits_alone_and_among_others(handmade: Path) -> None:
    pictures = pictures_of(9, 1, 5)
    together = [item.values for item in encoder_of(handmade).encode(pictures)]
    for tiles, among in zip(pictures, together, strict=True):
        (alone,) = encoder_of(handmade).encode([tiles])
        np.testing.assert_array_equal(alone.values, among)


def test_the_last_batch_wastes_no_tile(handmade: Path) -> None:
    timeline = Timeline()
    list(encoder_of(handmade, batch=4).encode(pictures_of(9), timeline=timeline))
    for part in ("patch", "blocks"):
        spans = [span for span in timeline.spans if span.part == part]
        assert [(span.batch, span.tiles) for span in spans] == [(0, 4), (1, 4), (2, 1)]


def slowed(encoder: ImageEncoder, seconds: float) -> ImageEncoder:
    """Makes both graphs take this much longer, asleep, so that overlap shows on any machine."""
    graphs = encoder._ready()
    for graph in (graphs.patch_embed, graphs.vision):

        def slow(*arguments: Any, run: Callable[..., Any] = graph.run) -> Any:
            time.sleep(seconds)
            return run(*arguments)

        graph.run = slow  # type: ignore[method-assign]
    return encoder


def test_patch_embedding_overlaps_the_blocks_only_in_the_pipeline(handmade: Path) -> None:
    pictures = pictures_of(9)
    hidden = {}
    for pipeline in (True, False):
        timeline = Timeline()
        list(slowed(encoder_of(handmade, pipeline=pipeline), 0.1).encode(pictures, timeline=timeline))
        hidden[pipeline] = hidden_seconds(timeline.spans)
    assert hidden[True] > 0.1  # two of three batches are embedded while blocks run
    assert hidden[False] == 0
    spans = list(timeline.spans)
    assert all(before.end <= after.start for before, after in itertools.pairwise(spans))


def test_hidden_seconds_counts_only_other_batches() -> None:
    spans = [
        Span("patch", 0, 4, 0, 1),
        Span("blocks", 0, 4, 1, 3),
        Span("patch", 1, 4, 1, 2.5),
        Span("blocks", 1, 4, 3, 4),
    ]
    assert hidden_seconds(spans) == 1.5


def test_a_broken_picture_stops_the_encoding_with_its_error(handmade: Path) -> None:
    def pictures() -> Iterator[np.ndarray]:
        yield pictures_of(4)[0]
        raise ImageError("b.png is broken.", "why", "fix")

    encoded = encoder_of(handmade).encode(pictures())
    with pytest.raises(ImageError, match=r"b\.png"):
        list(encoded)


def test_an_abandoned_encoding_leaves_the_encoder_usable(handmade: Path) -> None:
    encoder = encoder_of(handmade)
    started = encoder.encode(pictures_of(9, 9, 9))
    next(started)
    started.close()
    assert [len(item.values) for item in encoder.encode(pictures_of(2))] == [2]


def test_released_graphs_load_again(handmade: Path) -> None:
    encoder = encoder_of(handmade)
    assert not encoder.loaded
    first = [item.values for item in encoder.encode(pictures_of(3))]
    assert encoder.loaded and encoder.load_s > 0
    encoder.release()
    assert not encoder.loaded
    np.testing.assert_array_equal(first[0], next(iter(encoder.encode(pictures_of(3)))).values)


def test_a_batch_of_nothing_is_refused(handmade: Path) -> None:
    with pytest.raises(UsageError, match="--batch is 0"):
        encoder_of(handmade, batch=0)


def test_graphs_without_vit_features_say_so(handmade: Path, tmp_path: Path) -> None:
    for file in (names.PATCH_EMBED_FILE, names.DEVICE_CONFIG_FILE):
        (tmp_path / file).write_bytes((handmade / file).read_bytes())
    model = onnx.load(handmade / names.VISION_FILE)
    del model.graph.output[1]
    onnx.save(model, tmp_path / names.VISION_FILE)
    encoder = encoder_of(tmp_path)
    assert len(list(encoder.encode(pictures_of(1)))) == 1
    with pytest.raises(UsageError, match="no output vit_features"):
        list(encoder.encode(pictures_of(1), "vit_features"))


def test_nan_features_are_named(handmade: Path, tmp_path: Path) -> None:
    for file in (names.PATCH_EMBED_FILE, names.DEVICE_CONFIG_FILE):
        (tmp_path / file).write_bytes((handmade / file).read_bytes())
    model = onnx.load(handmade / names.VISION_FILE)
    for item in model.graph.initializer:
        if item.name == "block":
            item.CopyFrom(onnx.numpy_helper.from_array(np.full((24, 24), np.nan, np.float32), "block"))
    onnx.save(model, tmp_path / names.VISION_FILE)
    with pytest.raises(ModelError, match=r"vision\.onnx computes numbers that are NaN"):
        list(encoder_of(tmp_path).encode(pictures_of(1)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=8), st.integers(1, 7))
def test_batches_hold_every_tile_once_and_no_two_pictures(counts: list[int], size: int) -> None:
    pictures = [np.arange(count) + 100 * index for index, count in enumerate(counts)]
    found = list(batches(pictures, size))
    assert [batch.number for batch in found] == list(range(len(found)))
    np.testing.assert_array_equal(
        np.concatenate([*(batch.tiles for batch in found), []]), np.concatenate([*pictures, []])
    )
    for batch in found:
        picture = pictures[batch.tiles[0] // 100]
        assert len(batch.tiles) == size or batch.last
        assert batch.last == (batch.tiles[-1] == picture[-1])
        assert set(batch.tiles) <= set(picture)
