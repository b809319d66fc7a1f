"""How fast exported models load, encode, read and write on this machine (Sec. 3.2–3.4, Figs. 7 and 8, Table 5).

What each test times:
  load     all sessions opened, vision and language side by side as at start-up; files come from the page cache, large
           weights prepacked where there is a cache of them (warm-up writes it);
  encode   tiles already cropped (uint8) to image tokens: normalizing, patch embedding, ViT blocks, connector;
  prefill  a prompt of given length, embedding lookup included, to the logits after it, `chunk` tokens a call;
  decode   greedy choice, embedding lookup and one step a token, after that prefill.

Whatever is compared (models, tiles, tiles per batch, prompts, chunks) is run in turns, see `clock`, and the machine's
ceilings with it. Vision is freed before the prompt is read, as the runtime does (Sec. 3.4), so that peak memory is that
of use. Axes: N tiles of a picture, S tile side.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import LanguageModel, load_language
from stages.device.runtime.memory import peak_rss_mb
from stages.device.runtime.sampling import greedy
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.sessions import available_threads
from stages.measure.ceilings import Ceilings
from stages.measure.clock import interleaved, stopwatch
from stages.measure.model_account import ModelAccount, account_of
from stages.measure.random_models import BenchModel
from stages.measure.records import Record, Work, record_of
from stages.measure.workload import Workload, fit

Tiles = NDArray[np.uint8]
Action = Callable[[], Mapping[str, float]]
# A peak of memory that grows by less than this share has been reached before.
SAME_PEAK = 0.01
_CEILINGS = "ceilings"


class EncodeCase(NamedTuple):
    """One encode test: which model, which picture, how many tiles a call."""

    model: int
    picture: int
    batch: int


class TextCase(NamedTuple):
    """One prefill and decode test: which model, how many tokens, how many a call."""

    model: int
    prompt: int
    chunk: int


# Seconds by case and part.
Samples = dict[Any, dict[str, list[float]]]


@dataclass(frozen=True)
class Measured:
    """What a bench found: the records, at which stage memory peaked, the ceilings of each turn."""

    records: tuple[Record, ...]
    peak_stage: str
    ceilings: tuple[Ceilings, ...]


@dataclass(frozen=True)
class _Loaded:
    encoder: ImageEncoder
    language: LanguageModel


def bench_device(
    models: Sequence[BenchModel],
    asked: Workload,
    pictures: Sequence[Tiles],
    ceilings: Callable[[], Ceilings] | None = None,
    cache: SessionCache | None = None,
) -> Events[Measured]:
    """Measures exported models, in turns.

    Args:
        models: at least one; several must have the same shape.
        asked: what to run; bounded by what the models can take, with a notice.
        pictures: tiles of one picture each, [N, 3, S, S].
        ceilings: measures the machine when called; None leaves that out.
        cache: where prepacked weights are kept, as the runtime does; None for nowhere.

    Raises:
        UsageError: the workload cannot be run on these models.
        ModelError: a graph is missing, damaged or fails.
    """
    context = min(model.config.decoder.max_context for model in models)
    fitted = fit(asked, context, models[0].config.vision.max_batch)
    for notice in fitted.notices:
        yield Notice(notice, "warning")
    work = fitted.workload
    encode_sizes, text_sizes = len(pictures) * len(work.batches), len(work.prompts) * len(work.chunks)
    turn = len(models) * (1 + encode_sizes + text_sizes) + (ceilings is not None)
    steps = _Steps(total=(work.warmup + work.runs) * turn)
    held: dict[int, _Loaded] = {}
    peaks: dict[str, float] = {}

    loads = yield from steps.run("load", _load_cases(held, models, work, cache), work)
    peaks["load"] = peak_rss_mb()
    encodes = yield from steps.run("encode", _encode_cases(held, pictures, work), work)
    for loaded in held.values():
        loaded.encoder.release()
    peaks["encode"] = peak_rss_mb()
    moments: list[Ceilings] = []
    cases = _text_cases(held, models, work)
    if ceilings is not None:
        cases[_CEILINGS] = functools.partial(_take, moments, ceilings)
    texts = yield from steps.run("prefill and decode", cases, work)
    peaks["text"] = peak_rss_mb()

    accounts = [account_of(model.folder, model.config.decoder) for model in models]
    found = _Found(models, accounts, pictures, work, tuple(moments[work.warmup :]), cache is not None)
    records = (*found.loads(loads), *found.encodes(encodes), *found.texts(texts))
    yield Finished(Measured(records, _peak_stage(peaks), found.moments))


class _Steps:
    """Runs groups of cases in turns, telling how far it is, and collects the samples that count."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def run(self, label: str, cases: Mapping[Any, Action], work: Workload) -> Generator[Progress, None, Samples]:
        """Yields progress, returns seconds by case and part."""
        samples: Samples = {case: {} for case in cases}
        for lap in interleaved(cases, warmup=work.warmup, runs=work.runs):
            self.done += 1
            yield Progress(label, self.done, self.total, "runs")
            if lap.counts:
                for part, seconds in lap.seconds.items():
                    samples[lap.case].setdefault(part, []).append(seconds)
        return samples


def _take(moments: list[Ceilings], ceilings: Callable[[], Ceilings]) -> dict[str, float]:
    moments.append(ceilings())
    return {}


def _peak_stage(peaks: Mapping[str, float]) -> str:
    """The first stage that reached the last peak, near enough."""
    return next(stage for stage, peak in peaks.items() if peak >= (1 - SAME_PEAK) * max(peaks.values()))


def _load_cases(
    held: dict[int, _Loaded], models: Sequence[BenchModel], work: Workload, cache: SessionCache | None
) -> Mapping[int, Action]:
    def load(index: int) -> dict[str, float]:
        """Opens all sessions anew, after letting go of those of the run before."""
        held.pop(index, None)
        gc.collect()
        model, capacity = models[index], max(work.prompts) + work.generate
        with stopwatch() as watch, ThreadPoolExecutor(2) as pool:
            encoder = ImageEncoder(model.folder, model.config, work.threads, work.batches[0], cache=cache)
            vision = pool.submit(encoder.load)
            language = pool.submit(
                load_language,
                model.folder,
                model.config,
                threads=work.threads,
                capacity=capacity,
                chunk=work.chunks[0],
                cache=cache,
            )
            vision.result()
            held[index] = _Loaded(encoder, language.result())
        return {"load": watch.seconds}

    return {index: functools.partial(load, index) for index in range(len(models))}


def _encode_cases(
    held: Mapping[int, _Loaded], pictures: Sequence[Tiles], work: Workload
) -> Mapping[EncodeCase, Action]:
    def encode(case: EncodeCase) -> dict[str, float]:
        encoder = held[case.model].encoder
        encoder.batch = case.batch
        with stopwatch() as watch:
            for _ in encoder.encode([pictures[case.picture]]):
                pass
        return {"encode": watch.seconds}

    sizes = itertools.product(range(len(pictures)), work.batches, sorted(held))
    cases = [EncodeCase(model, picture, batch) for picture, batch, model in sizes]
    return {case: functools.partial(encode, case) for case in cases}


def _text_cases(held: Mapping[int, _Loaded], models: Sequence[BenchModel], work: Workload) -> dict[Hashable, Action]:
    def read_and_write(case: TextCase) -> dict[str, float]:
        context, vocabulary = held[case.model].language.context, models[case.model].config.decoder.vocab_size
        decoder, embedder = context.decoder, context.embedder
        ids = np.random.default_rng(work.seed).integers(0, vocabulary, case.prompt).tolist()
        decoder.truncate(0)
        with stopwatch() as reading:
            logits = decoder.prefill(embedder(ids), chunk=case.chunk)
        with stopwatch() as writing:
            for _ in range(work.generate):
                logits = decoder.step(embedder([greedy(logits)]))
        return {"prefill": reading.seconds, "decode": writing.seconds}

    sizes = itertools.product(work.prompts, work.chunks, sorted(held))
    cases = [TextCase(model, prompt, chunk) for prompt, chunk, model in sizes]
    return {case: functools.partial(read_and_write, case) for case in cases}


@dataclass(frozen=True)
class _Found:
    """Turns samples into records."""

    models: Sequence[BenchModel]
    accounts: Sequence[ModelAccount]
    pictures: Sequence[Tiles]
    work: Workload
    moments: tuple[Ceilings, ...]
    cached: bool

    def loads(self, samples: Samples) -> Iterator[Record]:
        for index, model in enumerate(self.models):
            yield record_of("load", model.config.name, samples[index]["load"], cached=self.cached, **self._about(index))

    def encodes(self, samples: Samples) -> Iterator[Record]:
        for case, parts in samples.items():
            tiles = len(self.pictures[case.picture])
            tokens = tiles * self.models[case.model].config.vision.tokens_per_tile
            yield record_of(
                "encode",
                self.models[case.model].config.name,
                parts["encode"],
                tokens=tokens,
                tiles_per_batch=case.batch,
                tiles=tiles,
                n_prompt=tokens,
                forms=self.accounts[case.model].vision_forms,
                **self._about(case.model),
            )

    def texts(self, samples: Samples) -> Iterator[Record]:
        cases = [case for case in samples if case != _CEILINGS]
        for case in cases:
            account = self.accounts[case.model]
            yield self._text(
                "prefill",
                case,
                samples,
                tokens=case.prompt,
                forms=account.prefill_forms,
                work=self._beside(account.decoder.operations(case.prompt), "int8_gop_s"),
            )
        for case in cases if self.work.generate else ():
            account, count = self.accounts[case.model], self.work.generate
            # The first token reads the prompt's positions and its own, the last those of all tokens before it too.
            amount = count * account.decoder.bytes_per_token(case.prompt + (count + 1) / 2)
            yield self._text(
                "decode",
                case,
                samples,
                tokens=count,
                n_gen=count,
                forms=account.decoder_forms,
                work=self._beside(amount, "read_gb_s"),
            )

    def _text(self, test: Any, case: TextCase, samples: Samples, **more: Any) -> Record:
        config = self.models[case.model].config
        about = {**self._about(case.model), "chunk": case.chunk, "n_prompt": case.prompt, "kv": config.decoder.kv_dtype}
        return record_of(test, config.name, samples[case][test], **about, **more)

    def _about(self, index: int) -> dict[str, Any]:
        return {"threads": self.work.threads or available_threads(), "policy": self.models[index].policy}

    def _beside(self, amount: float, name: str) -> Work:
        return Work(amount, [getattr(moment, name) for moment in self.moments] or None)
