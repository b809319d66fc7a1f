"""How fast exported models load, encode, read and write on this machine (Sec. 3.2–3.4, Figs. 7 and 8, Table 5).

What each test times:
  load     all sessions opened, vision and language side by side as at start-up; files come from the page cache, large
           weights prepacked where there is a cache of them (warm-up writes it);
  encode   tiles already cropped (uint8) to image tokens: normalizing, patch embedding, ViT blocks, connector;
  prefill  a prompt of given length, embedding lookup included, to the logits after it, `chunk` tokens a call;
  decode   greedy choice, embedding lookup and one step a token, after that prefill.

Whatever is compared (models, tiles, tiles per batch, prompts, chunks, peers) is run in turns, see `clock`, and the
machine's ceilings with it. Vision is freed before the prompt is read, as the runtime does (Sec. 3.4), so that peak
memory is that of use. Axes: N tiles of a picture, S tile side.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.device.runtime.memory import peak_rss_mb
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.timeline import Span
from stages.measure.ceilings import Ceilings
from stages.measure.clock import interleaved
from stages.measure.device_cases import Action, Device, EncodeCase, TextCase, Tiles
from stages.measure.device_records import OTHERS, RecordMaker, Samples
from stages.measure.disturbance import watched
from stages.measure.model_account import account_of
from stages.measure.random_models import BenchModel
from stages.measure.records import Record
from stages.measure.workload import EVERYTHING, Workload, fit

# A peak of memory that grows by less than this share has been reached before.
SAME_PEAK = 0.01
# The system counts processor time in steps of a hundredth of a second: of shorter runs it tells nothing of others.
TELLING_S = 0.2
_CEILINGS = "ceilings"
_LABELS = {"text": "prefill and decode"}


@dataclass(frozen=True)
class Measured:
    """What a bench found.

    Attributes:
        records: of our models.
        peak_stage: at which stage memory peaked.
        ceilings: of each turn.
        spans: what ran when, of the runs of each encode case.
        peers: of each peer, its parts' seconds by run.
    """

    records: tuple[Record, ...]
    peak_stage: str
    ceilings: tuple[Ceilings, ...]
    spans: Mapping[EncodeCase, tuple[tuple[Span, ...], ...]] = field(default_factory=dict)
    peers: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def bench_device(
    models: Sequence[BenchModel],
    asked: Workload,
    pictures: Sequence[Tiles],
    ceilings: Callable[[], Ceilings] | None = None,
    cache: SessionCache | None = None,
    peers: Mapping[str, Action] | None = None,
) -> Events[Measured]:
    """Measures exported models, in turns.

    Args:
        models: at least one; several must have the same shape.
        asked: what to run; bounded by what the models can take, with a notice.
        pictures: tiles of one picture each, [N, 3, S, S].
        ceilings: measures the machine when called; None leaves that out.
        cache: where prepacked weights are kept, as the runtime does; None for nowhere.
        peers: other programs that read and write as our language models do, each once a turn with them.

    Raises:
        UsageError: the workload cannot be run on these models.
        ModelError: a graph is missing, damaged or fails.
    """
    context = min(model.config.decoder.max_context for model in models)
    fitted = fit(asked, context, models[0].config.vision.max_batch)
    for notice in fitted.notices:
        yield Notice(notice, "warning")
    work = fitted.workload
    device = Device(models, work, cache)
    encode_cases, text_cases = device.encode_cases(pictures), device.text_cases()
    moments: list[Ceilings] = []
    if ceilings is not None:
        text_cases[_CEILINGS] = functools.partial(_take, moments, ceilings)
    text_cases.update((peers or {}).items())
    phases: dict[str, Mapping[object, Action]] = {"load": device.load_cases()}  # type: ignore[dict-item]
    phases |= {"encode": encode_cases} if "encode" in work.parts else {}  # type: ignore[dict-item]
    phases |= {"text": text_cases} if "text" in work.parts else {}
    # Loading is a test of its own only where both sides are loaded; otherwise it is done once.
    whole = set(work.parts) == set(EVERYTHING)
    steps = _Steps(work, phases, once=() if whole else ("load",))
    samples: dict[str, Samples] = {}
    peaks: dict[str, float] = {}
    for phase in phases:
        if phase == "text":
            device.free_vision()
        samples[phase] = yield from steps.run(phase)
        peaks[phase] = peak_rss_mb()
    accounts = [account_of(model.folder, model.config.decoder) for model in models]
    maker = RecordMaker(models, accounts, pictures, work, tuple(moments[work.warmup :]), cache is not None, peaks)
    yield Finished(
        Measured(
            tuple(_records(maker, samples, whole)),
            _peak_stage(peaks),
            maker.moments,
            {case: tuple(runs[work.warmup :]) for case, runs in device.spans.items()},
            {name: samples["text"][name] for name in peers or ()},
        )
    )


def _records(maker: RecordMaker, samples: Mapping[str, Samples], whole: bool) -> Iterator[Record]:
    if whole:
        yield from maker.loads(samples["load"])
    yield from maker.encodes(samples.get("encode", {}))
    yield from maker.texts(samples.get("text", {}))


class _Steps:
    """Runs groups of cases in turns, telling how far it is, and collects the samples that count."""

    def __init__(self, work: Workload, phases: Mapping[str, Mapping[object, Action]], once: Sequence[str]) -> None:
        self._phases, self.done = phases, 0
        self._turns = {phase: (0, 1) if phase in once else (work.warmup, work.runs) for phase in phases}
        self.total = sum(sum(self._turns[phase]) * len(cases) for phase, cases in phases.items())

    def run(self, phase: str) -> Generator[Progress, None, Samples]:
        """Yields progress, returns seconds by case and part."""
        cases = self._phases[phase]
        samples: Samples = {case: {} for case in cases}
        warmup, runs = self._turns[phase]
        watching = {case: functools.partial(_watched, action) for case, action in cases.items()}
        started = time.perf_counter()
        with watched() as seen:
            for lap in interleaved(watching, warmup=warmup, runs=runs):
                self.done += 1
                yield Progress(_LABELS.get(phase, phase), self.done, self.total, "runs")
                if lap.counts:
                    for part, value in lap.seconds.items():
                        samples[lap.case].setdefault(part, []).append(value)
        # Of runs too short to tell, what all of them saw together; unless this bench itself worked elsewhere meanwhile.
        alone = all(isinstance(case, int | EncodeCase | TextCase) for case in cases)
        if alone and time.perf_counter() - started >= TELLING_S:
            for parts in samples.values():
                parts[OTHERS] = [round(seen.share, 4) if share is None else share for share in parts[OTHERS]]
        return samples


def _watched(action: Action) -> dict[str, float]:
    """An action's seconds, and the share of the processor that others had meanwhile, where it ran long enough."""
    started = time.perf_counter()
    with watched() as seen:
        parts = dict(action())
    telling = time.perf_counter() - started >= TELLING_S
    return {**parts, OTHERS: round(seen.share, 4) if telling else None}  # type: ignore[dict-item]


def _take(moments: list[Ceilings], ceilings: Callable[[], Ceilings]) -> dict[str, float]:
    moments.append(ceilings())
    return {}


def _peak_stage(peaks: Mapping[str, float]) -> str:
    """The first stage that reached the last peak, near enough."""
    return next(stage for stage, peak in peaks.items() if peak >= (1 - SAME_PEAK) * max(peaks.values()))
