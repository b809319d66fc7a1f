"""What a bench runs in turns: loading, encoding a picture, reading a prompt and writing behind it.

Axes: N tiles of a picture, S tile side.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import LanguageModel, load_language
from stages.device.runtime.sampling import greedy
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.timeline import Span, Timeline
from stages.measure.clock import stopwatch
from stages.measure.random_models import BenchModel
from stages.measure.workload import Workload

Tiles = NDArray[np.uint8]
Action = Callable[[], Mapping[str, float]]


class EncodeCase(NamedTuple):
    """One encode test: which model, which picture, how many tiles a call, overlapped or not."""

    model: int
    picture: int
    batch: int
    pipeline: bool = True


class TextCase(NamedTuple):
    """One prefill and decode test: which model, how many tokens, how many a call."""

    model: int
    prompt: int
    chunk: int


@dataclass
class Device:
    """The models as they are in memory.

    Attributes:
        models: at least one.
        work: what is run on them.
        cache: where prepacked weights are kept.
        spans: what ran when, of each encode case's runs, warm-up included.
    """

    models: Sequence[BenchModel]
    work: Workload
    cache: SessionCache | None
    spans: dict[EncodeCase, list[tuple[Span, ...]]] = field(default_factory=dict)
    _encoders: dict[int, ImageEncoder] = field(default_factory=dict)
    _languages: dict[int, LanguageModel] = field(default_factory=dict)

    def load_cases(self) -> dict[int, Action]:
        """Opening all sessions of each model anew."""
        return {index: functools.partial(self._load, index) for index in range(len(self.models))}

    def encode_cases(self, pictures: Sequence[Tiles]) -> dict[EncodeCase, Action]:
        """Every picture in every way, each model after the other."""
        work = self.work
        sizes = itertools.product(range(len(pictures)), work.batches, work.pipelines, range(len(self.models)))
        cases = [EncodeCase(model, picture, batch, pipeline) for picture, batch, pipeline, model in sizes]
        return {case: functools.partial(self._encode, case, pictures[case.picture]) for case in cases}

    def text_cases(self) -> dict[Hashable, Action]:
        """Every prompt in every chunk size, each model after the other."""
        sizes = itertools.product(self.work.prompts, self.work.chunks, range(len(self.models)))
        cases = [TextCase(model, prompt, chunk) for prompt, chunk, model in sizes]
        return {case: functools.partial(self._read_and_write, case) for case in cases}

    def free_vision(self) -> None:
        """Lets go of the vision graphs, as the runtime does before a prompt is read (Sec. 3.4)."""
        for encoder in self._encoders.values():
            encoder.release()

    def threads_of(self, index: int) -> int | None:
        """Threads of a model; None for every core."""
        return self.models[index].threads or self.work.threads

    def _load(self, index: int) -> dict[str, float]:
        self._encoders.pop(index, None)
        self._languages.pop(index, None)
        gc.collect()
        model, work, threads = self.models[index], self.work, self.threads_of(index)
        capacity = max(work.prompts) + work.generate
        with stopwatch() as watch, ThreadPoolExecutor(2) as pool:
            encoder = ImageEncoder(model.folder, model.config, threads, work.batches[0], cache=self.cache)
            vision = pool.submit(encoder.load) if "encode" in work.parts else None
            if "text" in work.parts:
                language = pool.submit(
                    load_language,
                    model.folder,
                    model.config,
                    threads=threads,
                    capacity=capacity,
                    chunk=work.chunks[0],
                    cache=self.cache,
                )
                self._languages[index] = language.result()
            if vision is not None:
                vision.result()
            self._encoders[index] = encoder
        return {"load": watch.seconds}

    def _encode(self, case: EncodeCase, tiles: Tiles) -> dict[str, float]:
        encoder, timeline = self._encoders[case.model], Timeline()
        encoder.batch, encoder.pipeline = case.batch, case.pipeline
        with stopwatch() as watch:
            for _ in encoder.encode([tiles], timeline=timeline):
                pass
        self.spans.setdefault(case, []).append(timeline.spans)
        return {"encode": watch.seconds}

    def _read_and_write(self, case: TextCase) -> dict[str, float]:
        context = self._languages[case.model].context
        vocabulary = self.models[case.model].config.decoder.vocab_size
        decoder, embedder = context.decoder, context.embedder
        ids = np.random.default_rng(self.work.seed).integers(0, vocabulary, case.prompt).tolist()
        decoder.truncate(0)
        with stopwatch() as reading:
            logits = decoder.prefill(embedder(ids), chunk=case.chunk)
        with stopwatch() as writing:
            for _ in range(self.work.generate):
                logits = decoder.step(embedder([greedy(logits)]))
        return {"prefill": reading.seconds, "decode": writing.seconds}
