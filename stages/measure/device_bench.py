"""How fast an exported model loads, encodes, reads and writes on this machine (Sec. 3.2–3.4, Figs. 7 and 8, Table 5).

What each test times:
  load     all sessions opened, vision and language side by side as at start-up; files come from the page cache;
  encode   tiles already cropped (uint8) to image tokens: normalizing, patch embedding, ViT blocks, connector;
  prefill  a prompt of given length, embedding lookup included, to the logits after it, `chunk` tokens a call;
  decode   greedy choice, embedding lookup and one step a token, after that prefill.

Sizes that are compared (tiles per batch, chunks) are run in turns, see `clock`. Vision is freed before the prompt is
read, as the runtime does (Sec. 3.4), so that peak memory is that of use.

Axes: N tiles of the picture, S tile side.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.device.contract.device_config import DeviceConfig
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import LanguageModel, load_language
from stages.device.runtime.sampling import greedy
from stages.device.runtime.sessions import available_threads
from stages.measure.clock import interleaved, stopwatch
from stages.measure.records import Record, record_of
from stages.measure.workload import Workload, fit

_LOAD = 0
Cases = Mapping[int, Callable[[], Mapping[str, float]]]
# Seconds by case (chunk or batch) and part.
Samples = dict[int, dict[str, list[float]]]


@dataclass(frozen=True)
class _Loaded:
    encoder: ImageEncoder
    language: LanguageModel


def bench_device(
    folder: Path, config: DeviceConfig, asked: Workload, tiles: NDArray[np.uint8]
) -> Events[tuple[Record, ...]]:
    """Measures an exported model.

    Args:
        folder: the exported model.
        config: its `device.json`.
        asked: what to run; bounded by what the model can take, with a notice.
        tiles: of one picture, [N, 3, S, S].

    Raises:
        UsageError: the workload cannot be run on this model.
        ModelError: a graph is missing, damaged or fails.
    """
    fitted = fit(asked, config.decoder.max_context, config.vision.max_batch)
    for notice in fitted.notices:
        yield Notice(notice, "warning")
    work = fitted.workload
    steps = _Steps(total=(work.warmup + work.runs) * (1 + len(work.batches) + len(work.chunks)))
    held: list[_Loaded] = []
    loads = yield from steps.run("load", {_LOAD: lambda: _load(held, folder, config, work)}, work)
    loaded = held[0]
    encodes = yield from steps.run("encode", _encode_cases(loaded.encoder, tiles, work), work)
    loaded.encoder.release()
    texts = yield from steps.run("prefill and decode", _text_cases(loaded.language, config, work), work)
    yield Finished(tuple(_records(config, work, len(tiles), loads, encodes, texts)))


class _Steps:
    """Runs groups of cases in turns, telling how far it is, and collects the samples that count."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def run(self, label: str, cases: Cases, work: Workload) -> Generator[Progress, None, Samples]:
        """Yields progress, returns seconds by case and part."""
        samples: Samples = {case: {} for case in cases}
        for lap in interleaved(cases, warmup=work.warmup, runs=work.runs):
            self.done += 1
            yield Progress(label, self.done, self.total, "runs")
            if lap.counts:
                for part, seconds in lap.seconds.items():
                    samples[lap.case].setdefault(part, []).append(seconds)
        return samples


def _load(held: list[_Loaded], folder: Path, config: DeviceConfig, work: Workload) -> dict[str, float]:
    """Opens all sessions anew, after letting go of those of the run before."""
    held.clear()
    gc.collect()
    with stopwatch() as watch, ThreadPoolExecutor(2) as pool:
        encoder = ImageEncoder(folder, config, work.threads, work.batches[0])
        vision = pool.submit(encoder.load)
        language = pool.submit(
            load_language,
            folder,
            config,
            threads=work.threads,
            capacity=work.prompt_tokens + work.generate,
            chunk=work.chunks[0],
        )
        vision.result()
        held.append(_Loaded(encoder, language.result()))
    return {"load": watch.seconds}


def _encode_cases(encoder: ImageEncoder, tiles: NDArray[np.uint8], work: Workload) -> Cases:
    def encode(batch: int) -> dict[str, float]:
        encoder.batch = batch
        with stopwatch() as watch:
            for _ in encoder.encode([tiles]):
                pass
        return {"encode": watch.seconds}

    return {batch: functools.partial(encode, batch) for batch in work.batches}


def _text_cases(language: LanguageModel, config: DeviceConfig, work: Workload) -> Cases:
    decoder, embedder = language.context.decoder, language.context.embedder
    ids = np.random.default_rng(work.seed).integers(0, config.decoder.vocab_size, work.prompt_tokens).tolist()

    def read_and_write(chunk: int) -> dict[str, float]:
        decoder.truncate(0)
        with stopwatch() as reading:
            logits = decoder.prefill(embedder(ids), chunk)
        with stopwatch() as writing:
            for _ in range(work.generate):
                logits = decoder.step(embedder([greedy(logits)]))
        return {"prefill": reading.seconds, "decode": writing.seconds}

    return {chunk: functools.partial(read_and_write, chunk) for chunk in work.chunks}


def _records(
    config: DeviceConfig, work: Workload, tiles: int, loads: Samples, encodes: Samples, texts: Samples
) -> Iterator[Record]:
    name, threads, kv = config.name, work.threads or available_threads(), config.decoder.kv_dtype
    yield record_of("load", name, loads[_LOAD]["load"], threads=threads)
    image_tokens = tiles * config.vision.tokens_per_tile
    for batch in work.batches:
        yield record_of(
            "encode",
            name,
            encodes[batch]["encode"],
            tokens=image_tokens,
            threads=threads,
            tiles_per_batch=batch,
            tiles=tiles,
            n_prompt=image_tokens,
        )
    yield from _text_records(name, threads, kv, work, texts)


def _text_records(name: str, threads: int, kv: str, work: Workload, texts: Samples) -> Iterator[Record]:
    for chunk in work.chunks:
        yield record_of(
            "prefill",
            name,
            texts[chunk]["prefill"],
            tokens=work.prompt_tokens,
            threads=threads,
            chunk=chunk,
            n_prompt=work.prompt_tokens,
            kv=kv,
        )
    for chunk in work.chunks:
        yield record_of(
            "decode",
            name,
            texts[chunk]["decode"],
            tokens=work.generate,
            threads=threads,
            chunk=chunk,
            n_prompt=work.prompt_tokens,
            n_gen=work.generate,
            kv=kv,
        )
