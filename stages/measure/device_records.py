"""From seconds to records: what each test of a bench had to do, and under which setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.device.runtime.sessions import available_threads
from stages.measure.ceilings import Ceilings
from stages.measure.device_cases import EncodeCase, TextCase, Tiles
from stages.measure.model_account import ModelAccount
from stages.measure.random_models import BenchModel
from stages.measure.records import Record, Work, record_of
from stages.measure.workload import Workload

OTHERS = "others"
# Seconds by case and part, and under OTHERS the share of the processor that others had.
Samples = dict[Any, dict[str, list[Any]]]


@dataclass(frozen=True)
class RecordMaker:
    """Turns samples into records.

    Attributes:
        models: what was measured.
        accounts: of each, what its graphs have to do.
        pictures: tiles of each.
        work: what was run.
        moments: the machine's ceilings in each turn; none where they were left out.
        cached: whether large weights came from a cache.
        peaks: the process's memory at the end of each part, in MB.
    """

    models: Sequence[BenchModel]
    accounts: Sequence[ModelAccount]
    pictures: Sequence[Tiles]
    work: Workload
    moments: tuple[Ceilings, ...]
    cached: bool
    peaks: Mapping[str, float]

    def loads(self, samples: Samples) -> Iterator[Record]:
        """One for each model."""
        for index in range(len(self.models)):
            yield self._record("load", index, samples[index], "load", cached=self.cached)

    def encodes(self, samples: Samples) -> Iterator[Record]:
        """One for each way of encoding each picture."""
        for case, parts in samples.items():
            assert isinstance(case, EncodeCase)
            tiles = len(self.pictures[case.picture])
            tokens = tiles * self.models[case.model].config.vision.tokens_per_tile
            yield self._record(
                "encode",
                case.model,
                parts,
                "encode",
                tokens=tokens,
                tiles_per_batch=case.batch,
                tiles=tiles,
                pipeline=case.pipeline,
                n_prompt=tokens,
                forms=self.accounts[case.model].vision_forms,
            )

    def texts(self, samples: Samples) -> Iterator[Record]:
        """Prefill, then decoding, one for each prompt and chunk."""
        cases = [case for case in samples if isinstance(case, TextCase)]
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
        kv = self.models[case.model].config.decoder.kv_dtype
        about = {"chunk": case.chunk, "n_prompt": case.prompt, "kv": kv, **more}
        return self._record(test, case.model, samples[case], "text", **about)

    def _record(self, test: Any, index: int, parts: Mapping[str, list[Any]], stage: str, **more: Any) -> Record:
        model = self.models[index]
        return record_of(
            test,
            model.config.name,
            parts[test],
            threads=model.threads or self.work.threads or available_threads(),
            policy=model.policy,
            samples_others=tuple(parts[OTHERS]),
            peak_rss_mb=round(self.peaks[stage], 1),
            **more,
        )

    def _beside(self, amount: float, name: str) -> Work:
        return Work(amount, [getattr(moment, name) for moment in self.moments] or None)
