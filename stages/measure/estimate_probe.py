"""One configuration, measured in a process of its own: times of each stage, and the memory that each one peaks at.

    python -m stages.measure.estimate_probe '{"folder": …, "tiles": 3, "prompt": 512, "chunk": 256}'

The stages are those of a chat: load (language and vision side by side), encode, free the vision tower, prefill, decode.
A process sees the largest memory it ever had; the kernel's mark is set back before each stage (`clear_refs`), so that
every stage has a peak of its own. The first run of each stage counts for memory, the later ones for time.

Beside each timed run stands what the machine did at that moment with work that is always the same (`Pace`): on a shared
machine everything takes twice as long from one minute to the next, and only a time relative to that can be compared.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.device.contract.device_config import DeviceConfig, read_device_config
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import LanguageModel, load_language
from stages.device.runtime.memory import peak_rss_mb, rss_mb
from stages.device.runtime.sampling import greedy
from stages.measure.clock import stopwatch
from stages.measure.picture_tiles import noise_tiles

_CLEAR = Path("/proc/self/clear_refs")
# What the kernel takes to set back the mark of the largest resident set (proc(5)).
_RESET_PEAK = "5"


class Marks:
    """Peak and present memory by stage, in MB (10^6 bytes)."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        """Starts a stage: the mark is what is resident now. Where the kernel cannot, peaks are those so far."""
        if _CLEAR.exists():
            _CLEAR.write_text(_RESET_PEAK)

    def end(self, stage: str) -> None:
        """Notes a stage."""
        self.peaks[stage], self.after[stage] = peak_rss_mb(), rss_mb()
        self.begin()


class Pace:
    """Seconds that fixed work takes now: a float32 product on all cores, or a walk through memory."""

    SIDE, WALK_BYTES = 1536, 96 << 20

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._square = rng.standard_normal((self.SIDE, self.SIDE), dtype=np.float32)
        self._product = np.zeros_like(self._square)
        self._long = np.ones(self.WALK_BYTES // 8, np.int64)

    def __call__(self, stage: str) -> float:
        """Decoding waits for memory, all else for products; the better of two tries."""
        tries = []
        for _ in range(2):
            with stopwatch() as watch:
                if stage == "decode":
                    int(self._long.sum())
                else:
                    np.matmul(self._square, self._square, out=self._product)
            tries.append(watch.seconds)
        return min(tries)


class Timed:
    """Seconds and pace of each stage's runs."""

    def __init__(self, runs: int) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.pace: dict[str, list[float]] = {}
        # Its arrays would count as memory of a run that is there for memory.
        self._pace = Pace() if runs else None

    @contextmanager
    def run(self, stage: str, counts: bool) -> Iterator[None]:
        """Times the block, with the pace before and after it."""
        before = self._pace(stage) if self._pace and counts else 0.0
        with stopwatch() as watch:
            yield
        if self._pace and counts:
            self.seconds.setdefault(stage, []).append(watch.seconds)
            self.pace.setdefault(stage, []).append((before + self._pace(stage)) / 2)


def probe(
    folder: Path,
    *,
    tiles: int,
    batch: int,
    prompt: int,
    chunk: int,
    generate: int,
    free_vision: bool,
    runs: int,
    threads: int | None,
) -> dict[str, Any]:
    """Measures one configuration.

    Args:
        folder: an exported model.
        tiles: of the picture, thumbnail included.
        batch: tiles a call.
        prompt: tokens to read.
        chunk: tokens a call.
        generate: tokens to write.
        free_vision: free the tower after encoding.
        runs: how often each stage is timed, after the run that counts for memory; with 0 only memory is measured.
        threads: None takes every core.

    Returns:
        seconds and pace by stage (one number a run), peak and present memory by stage.

    Raises:
        ModelError: the model cannot be run.
    """
    config = read_device_config(folder)
    marks, timed = Marks(), Timed(runs)
    marks.end("start")
    with stopwatch() as watch, ThreadPoolExecutor(2) as pool:
        encoder = ImageEncoder(folder, config, threads, batch)
        vision = pool.submit(encoder.load)
        capacity = max(prompt + generate, 1)
        loading = pool.submit(load_language, folder, config, threads=threads, capacity=capacity, chunk=chunk)
        vision.result()
        language = loading.result()
    timed.seconds["load"] = [watch.seconds]
    marks.end("load")
    _encode(encoder, config, tiles, marks, timed, runs)
    if free_vision:
        encoder.release()
        gc.collect()
    marks.end("free")
    _read_and_write(language, config, (prompt, chunk, generate), marks, timed, runs)
    return {"seconds": timed.seconds, "pace": timed.pace, "peak_mb": marks.peaks, "rss_mb": marks.after}


def _encode(encoder: ImageEncoder, config: DeviceConfig, tiles: int, marks: Marks, timed: Timed, runs: int) -> None:
    picture = noise_tiles(tiles, config, seed=0)
    for number in range(runs + 1):
        with timed.run("encode", counts=number > 0):
            for _ in encoder.encode([picture]):
                pass
        if number == 0:
            marks.end("encode")


def _read_and_write(
    language: LanguageModel, config: DeviceConfig, sizes: tuple[int, int, int], marks: Marks, timed: Timed, runs: int
) -> None:
    prompt, chunk, generate = sizes
    decoder, embedder = language.context.decoder, language.context.embedder
    ids = np.random.default_rng(0).integers(0, config.decoder.vocab_size, prompt).tolist()
    for number in range(runs + 1):
        decoder.truncate(0)
        with timed.run("prefill", counts=number > 0):
            logits = decoder.prefill(embedder(ids), chunk=chunk)
        if number == 0:
            marks.end("prefill")
        with timed.run("decode", counts=number > 0):
            for _ in range(generate):
                logits = decoder.step(embedder([greedy(logits)]))
        if number == 0:
            marks.end("decode")


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(probe(Path(settings.pop("folder")), **settings)) + "\n")
