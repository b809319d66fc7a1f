"""Where the time goes inside the graphs: every operator of encoding, prefill and decoding, from onnxruntime's profiler.

Each part runs once for warming up and once that counts, through the runtime that chat uses. What a part takes beyond
its operators (embedding rows, expanding weights, the runtime's own work, and the profiler's) is told as "outside".
Where parts of the runtime overlap (patch embedding beside the blocks), operators add up to more than the whole.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.events import Events, Finished, Progress
from stages.device.contract.names import DECODER_FILE
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import load_language
from stages.device.runtime.sampling import greedy
from stages.device.runtime.sessions import profiled_into
from stages.measure.clock import stopwatch
from stages.measure.profile import NodeRun, OperatorTime, Profile, read_profiles, sum_operators
from stages.measure.random_models import BenchModel
from stages.measure.workload import Workload

Part = Literal["encode", "prefill", "decode"]
_DECODER = Path(DECODER_FILE).stem


@dataclass(frozen=True)
class PartTime:
    """One part of the work: its whole time, and that of its operators, longest first."""

    part: Part
    seconds: float
    operators: tuple[OperatorTime, ...]

    @property
    def outside(self) -> float:
        """Seconds that no operator accounts for."""
        return max(0.0, self.seconds - sum(one.seconds for one in self.operators))

    def rows(self) -> list[dict[str, Any]]:
        """Operators as plain data, each with its share of the part's time."""
        rows = [{"part": self.part, **asdict(one), "share": one.seconds / self.seconds} for one in self.operators]
        outside = {"role": "outside", "op": None, "calls": None, "seconds": self.outside}
        return [*rows, {"part": self.part, **outside, "share": self.outside / self.seconds}]

    def roles(self) -> dict[str, float]:
        """Share of the part's time by role, largest first."""
        shares: dict[str, float] = {}
        for row in self.rows():
            shares[row["role"]] = shares.get(row["role"], 0.0) + row["share"]
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def profile_operators(model: BenchModel, work: Workload, tiles: NDArray[np.uint8]) -> Events[tuple[PartTime, ...]]:
    """Profiles one model.

    Args:
        model: the model.
        work: its first chunk, batch and prompt are run; at least one token is generated.
        tiles: of one picture, [N, 3, S, S].

    Raises:
        ModelError: a graph fails, or onnxruntime wrote no profile.
    """
    yield Progress("profiling encode", 0, 2, "parts")
    encode = _encode(model, work, tiles)
    yield Progress("profiling prefill and decode", 1, 2, "parts")
    yield Finished((encode, *_text(model, work)))


def _encode(model: BenchModel, work: Workload, tiles: NDArray[np.uint8]) -> PartTime:
    with tempfile.TemporaryDirectory(prefix="bluelm-profile-") as folder:
        with profiled_into(Path(folder)):
            encoder = ImageEncoder(model.folder, model.config, work.threads, work.batches[0])
            encoder.load()
        for _ in range(2):
            with stopwatch() as watch:
                for _ in encoder.encode([tiles]):
                    pass
        encoder.release()
        del encoder
        gc.collect()
        profiles = read_profiles(Path(folder))
    runs = [nodes for profile in profiles.values() for nodes in second_half(profile.runs)]
    return PartTime("encode", watch.seconds, tuple(sum_operators(runs)))


def _text(model: BenchModel, work: Workload) -> tuple[PartTime, PartTime]:
    prompt, chunk, generate = work.prompts[0], work.chunks[0], work.generate
    ids = np.random.default_rng(work.seed).integers(0, model.config.decoder.vocab_size, prompt).tolist()
    with tempfile.TemporaryDirectory(prefix="bluelm-profile-") as folder:
        with profiled_into(Path(folder)):
            capacity = prompt + generate
            language = load_language(model.folder, model.config, threads=work.threads, capacity=capacity, chunk=chunk)
        decoder, embedder = language.context.decoder, language.context.embedder
        for _ in range(2):
            decoder.truncate(0)
            with stopwatch() as reading:
                logits = decoder.prefill(embedder(ids), chunk)
            with stopwatch() as writing:
                for _ in range(generate):
                    logits = decoder.step(embedder([greedy(logits)]))
        del decoder, embedder, language
        gc.collect()
        profiles = read_profiles(Path(folder))
    reads, writes = split_text(profiles, generate)
    return (
        PartTime("prefill", reading.seconds, tuple(sum_operators(reads))),
        PartTime("decode", writing.seconds, tuple(sum_operators(writes))),
    )


def second_half(runs: Sequence[tuple[NodeRun, ...]]) -> Sequence[tuple[NodeRun, ...]]:
    """The runs that count, of a graph that did the same twice."""
    return runs[len(runs) // 2 :]


def split_text(
    profiles: dict[str, Profile], generate: int
) -> tuple[list[tuple[NodeRun, ...]], list[tuple[NodeRun, ...]]]:
    """Runs of prefill and of decoding, of the second time that both were done.

    The decoder's last `generate` runs are the tokens decoded; whatever else ran, in it and in other graphs, is prefill.
    """
    counted = {name: list(second_half(profile.runs)) for name, profile in profiles.items()}
    decoder = counted.pop(_DECODER, [])
    split = len(decoder) - generate
    others = [nodes for runs in counted.values() for nodes in runs]
    return decoder[:split] + others, decoder[split:]
