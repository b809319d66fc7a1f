"""Chunked prefill, cached decoding, rollback and growth: each is another path to the same logits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from stages.artifacts.errors import ModelError, UsageError
from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.cache import KVCache
from stages.device.runtime.decoder import Decoder
from stages.device.runtime.sessions import Graph

CLOSE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture(params=["float32", "int8"])
def folder(request: pytest.FixtureRequest, make_model: Callable[..., Path]) -> Path:
    return make_model(kv=request.param)


def decoder_of(folder: Path, capacity: int = 512) -> Decoder:
    spec = read_device_config(folder).decoder
    return Decoder(Graph(folder / names.DECODER_FILE, threads=1), spec, KVCache(spec, capacity))


def embeds_of(length: int, hidden: int = 32) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, hidden)).astype(np.float32)


def reference(folder: Path, embeds: np.ndarray) -> np.ndarray:
    """The handmade decoder's logits of every position, in numpy, float64, without any cache: [T, V]."""
    weights = {
        item.name: to_array(item).astype(np.float64)
        for item in onnx.load(folder / names.DECODER_FILE).graph.initializer
    }
    x = embeds.astype(np.float64)  # [T, H]
    length = len(x)
    cos, sin = weights["cos"][:length, None], weights["sin"][:length, None]

    def turned(heads: np.ndarray) -> np.ndarray:
        left, right = np.split(heads, 2, axis=-1)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)

    for layer in range(2):
        q = turned((x @ weights[f"wq{layer}"]).reshape(length, 2, 16))  # [T, heads, D]
        k = turned((x @ weights[f"wk{layer}"]).reshape(length, 1, 16))[:, 0]  # [T, D]
        v = x @ weights[f"wv{layer}"]  # [T, D]
        scores = np.einsum("thd,sd->hts", q, k) / 4.0
        scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        x = x + np.einsum("hts,sd->thd", share, v).reshape(length, 32) @ weights[f"wo{layer}"]
    return x @ weights["head"]


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("chunk", [1, 7, 128, 129, 512])
def test_chunked_prefill_equals_one_shot(folder: Path, length: int, chunk: int) -> None:
    embeds = embeds_of(length)
    whole, chunked = decoder_of(folder), decoder_of(folder)
    np.testing.assert_allclose(chunked.prefill(embeds, chunk), whole.prefill(embeds, chunk=length), **CLOSE)
    assert chunked.length == whole.length == length
    for layer in range(2):
        np.testing.assert_allclose(
            chunked.cache.keys(layer)[:, :, :length], whole.cache.keys(layer)[:, :, :length], **CLOSE
        )


def test_prefill_equals_numpy(handmade: Path) -> None:
    embeds = embeds_of(200)
    np.testing.assert_allclose(
        decoder_of(handmade).prefill(embeds), reference(handmade, embeds)[-1], rtol=1e-4, atol=1e-4
    )


def test_cached_decoding_equals_full_forward(folder: Path) -> None:
    embeds = embeds_of(40)
    cached = decoder_of(folder)
    cached.prefill(embeds[:30], chunk=8)
    for length in range(31, 41):
        step = cached.step(embeds[length - 1 : length])
        full = decoder_of(folder).prefill(embeds[:length], chunk=512)
        np.testing.assert_allclose(step, full, **CLOSE)


def test_truncated_and_read_again_equals_fresh(folder: Path) -> None:
    first, second = embeds_of(90), embeds_of(70)
    used = decoder_of(folder)
    used.prefill(first)
    used.truncate(25)
    continued = used.prefill(second, chunk=16)
    fresh = decoder_of(folder).prefill(np.concatenate([first[:25], second]))
    np.testing.assert_allclose(continued, fresh, **CLOSE)


def test_a_cache_that_grows_keeps_what_it_holds(folder: Path) -> None:
    embeds = embeds_of(300)
    small, large = decoder_of(folder, capacity=10), decoder_of(folder, capacity=512)
    for start in range(0, 300, 60):
        grown = small.prefill(embeds[start : start + 60], chunk=60)
    assert 300 <= small.cache.capacity <= 512
    np.testing.assert_allclose(grown, large.prefill(embeds, chunk=60), **CLOSE)


def test_past_and_present_are_one_buffer(folder: Path) -> None:
    decoder = decoder_of(folder, capacity=64)
    before = decoder.cache.keys(1)
    decoder.prefill(embeds_of(20))
    assert np.shares_memory(decoder.cache.keys(1), before)
    assert before[:, :, :20].any() and not before[:, :, 20:].any()


def test_what_is_written_into_the_cache_is_what_the_decoder_reads(folder: Path) -> None:
    """Prefill may fill the cache by other means than the graph: layer by layer, through the views."""
    embeds = embeds_of(30)
    source, target = decoder_of(folder), decoder_of(folder, capacity=64)
    source.prefill(embeds)
    for layer in range(2):
        target.cache.keys(layer)[:, :, :30] = source.cache.keys(layer)[:, :, :30]
        target.cache.values(layer)[:, :, :30] = source.cache.values(layer)[:, :, :30]
    target.length = 30
    step = embeds_of(1)
    np.testing.assert_allclose(target.step(step), source.step(step), **CLOSE)


def test_the_buffer_is_made_when_it_is_first_needed(folder: Path) -> None:
    decoder = decoder_of(folder, capacity=10)
    decoder.reserve(100)
    assert decoder.cache._buffer is None
    assert decoder.cache.capacity >= 100
    decoder.prefill(embeds_of(3))
    assert decoder.cache._buffer is not None
    views = [part(layer) for layer in range(2) for part in (decoder.cache.keys, decoder.cache.values)]
    starts = [view.ctypes.data - views[0].ctypes.data for view in views]
    assert starts == [index * views[0].nbytes for index in range(4)]  # one buffer, layer after layer
    assert 4 * views[0].nbytes == decoder.cache.nbytes


def test_cache_bytes(make_model: Callable[..., Path]) -> None:
    sizes = {}
    for kv in ("float32", "int8"):
        sizes[kv] = KVCache(read_device_config(make_model(kv=kv)).decoder, 100).nbytes
    assert sizes == {"float32": 2 * 2 * 100 * 16 * 4, "int8": 2 * 2 * 100 * 16}


def test_more_than_the_context_is_refused_before_anything_runs(handmade: Path) -> None:
    decoder = decoder_of(handmade)
    with pytest.raises(UsageError, match="takes 513 tokens; this model holds 512"):
        decoder.prefill(embeds_of(513))
    assert decoder.length == 0
    decoder.prefill(embeds_of(512))
    with pytest.raises(UsageError, match="513"):
        decoder.step(embeds_of(1))


def test_nan_logits_are_named(make_model: Callable[..., Path]) -> None:
    decoder = decoder_of(make_model(damage=float("nan")))
    with pytest.raises(ModelError, match=r"decoder\.onnx computes numbers that are NaN"):
        decoder.prefill(embeds_of(3))


def test_wrong_arguments_are_bugs(handmade: Path) -> None:
    decoder = decoder_of(handmade)
    with pytest.raises(ValueError, match="chunk"):
        decoder.prefill(embeds_of(3), chunk=0)
    with pytest.raises(ValueError, match="positions"):
        decoder.prefill(embeds_of(0))
    with pytest.raises(ValueError, match="cannot keep 1 of 0"):
        decoder.truncate(1)


def test_an_interrupt_while_the_cache_grows_leaves_no_binding_to_its_old_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeds = embeds_of(40)
    small, large = decoder_of(folder, capacity=10), decoder_of(folder)
    small.prefill(embeds[:10])
    grow = small.cache.reserve

    def interrupted(length: int, keep: int) -> bool:
        grow(length, keep)
        raise KeyboardInterrupt

    monkeypatch.setattr(small.cache, "reserve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small.reserve(40)
    monkeypatch.undo()
    np.testing.assert_allclose(small.prefill(embeds[10:]), large.prefill(embeds), **CLOSE)


def asks_for_large_pages(view: np.ndarray) -> bool:
    """Whether the kernel was asked to hold a view's memory in large pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"^([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= view.ctypes.data < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("no such mapping")


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux")
def test_a_mostly_filled_cache_asks_for_large_pages(make_model: Callable[..., Path]) -> None:
    """One that is hardly filled does not: each page would commit memory that nobody needs."""
    spec = read_device_config(make_model(kv="int8")).decoder
    for expected, asked in ((74, False), (75, True)):
        cache = KVCache(spec, 100)
        cache.expect(expected)
        assert asks_for_large_pages(cache.keys(0)) == asked
