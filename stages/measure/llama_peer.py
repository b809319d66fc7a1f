"""llama.cpp beside our language model: random Q4_0 weights of the same shape, run in turns with it.

Needs a python that has llama-cpp-python and gguf; `recipes/peers/compare.sh WORK --prepare` makes one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError
from stages.artifacts.events import Event, Notice
from stages.artifacts.recipes import recipes_folder
from stages.device.contract.prefill_layout import read_prefill_layout
from stages.device.runtime.sessions import available_threads
from stages.measure.peer_process import PeerProcess
from stages.measure.random_models import BenchModel
from stages.measure.records import Record, record_of
from stages.measure.workload import Workload, fit

ENGINE = "llama.cpp"
# llama.cpp's own micro-batch, and its own type of KV cache: the fastest of those we tried.
_MICRO_BATCH, _KV = 512, "float16"
_BLOCK = 32
_FIX = "Leave it out, or measure a model of another shape."


@dataclass
class LlamaPeer:
    """llama.cpp as a peer; `take` is what `run_job` asks for its peers."""

    python: Path
    keep: Path | None
    worker: PeerProcess | None = None
    threads: int = 0
    prompt: int = 0
    generate: int = 0
    name: str = ""
    peak_mb: float | None = None

    def take(
        self, models: Sequence[BenchModel], workload: Workload, stack: ExitStack
    ) -> Generator[Event[Any], None, Mapping[str, Callable[[], Mapping[str, float]]]]:
        """Writes the weights, starts the process and hands out what runs in each turn.

        Raises:
            ModelError: the shape is none that llama.cpp's Q4_0 takes, or its environment lacks something.
        """
        decoder = models[0].config.decoder
        work = fit(workload, decoder.max_context, None).workload
        self.threads = work.threads or available_threads()
        self.prompt, self.generate = max(work.prompts), work.generate
        folder = self.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluelm-llama-")))
        shape = llama_shape(models[0])
        file = folder / f"llama-{'-'.join(str(value) for value in shape.values())}.gguf"
        scripts = recipes_folder() / "peers"
        if not file.is_file():
            yield Notice(f"Random weights for llama.cpp: {shape['layers']} layers …")
            folder.mkdir(parents=True, exist_ok=True)
            self._write(scripts / "write_gguf.py", file, shape)
        sizes = [str(self.prompt), str(max(1, self.generate)), str(self.threads)]
        command = [str(self.python), str(scripts / "llama_decoder.py"), str(file), *sizes]
        self.worker = stack.enter_context(PeerProcess(command, file.with_suffix(".log")))
        self.name = f"{models[0].config.name}, random Q4_0"
        return {ENGINE: self._run}

    def records(self, seconds: Mapping[str, Sequence[float]], beside: Record) -> Iterator[Record]:
        """What was measured, as records of the same run as one of ours."""
        assert self.worker is not None
        about: dict[str, Any] = {
            "engine": ENGINE,
            "threads": self.threads,
            "chunk": _MICRO_BATCH,
            "n_prompt": self.prompt,
            "kv": _KV,
            "versions": self.worker.versions,
            "peak_rss_mb": self.peak_mb,
            "run": beside.run,
            "seed": 0,
            "machine": beside.machine,
            "test_time": beside.test_time,
        }
        yield record_of("prefill", self.name, seconds["prefill"], tokens=self.prompt, **about)
        if self.generate:
            count = self.generate
            yield record_of("decode", self.name, seconds["decode"], tokens=count, n_gen=count, **about)

    def _run(self) -> dict[str, float]:
        assert self.worker is not None
        found = {"prefill": self.worker.ask("prefill", f"ubatch {_MICRO_BATCH}")["seconds"]}
        if self.generate:
            found["decode"] = self.worker.ask("decode", "f16")["seconds"]
        self.peak_mb = self.worker.peak_rss_mb()
        return found

    def _write(self, script: Path, file: Path, shape: Mapping[str, int]) -> None:
        command = [str(self.python), str(script), str(file), json.dumps(shape)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ModelError(
                f"{self.python} cannot be run: {error.strerror}.",
                "llama.cpp is measured beside ours through it.",
                "Name the python of an environment that has llama-cpp-python and gguf.",
            ) from error
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise ModelError(
                f"Random weights for llama.cpp could not be written: {said}.",
                "It is measured beside ours on them.",
                "The environment needs gguf and numpy: recipes/peers/compare.sh WORK --prepare makes one.",
            )


def llama_shape(model: BenchModel) -> dict[str, int]:
    """What llama.cpp must know to write the same decoder.

    Raises:
        ModelError: the folder does not tell the MLP's width, or Q4_0 does not divide a width.
    """
    decoder = model.config.decoder
    layout = read_prefill_layout(model.folder, decoder.num_layers)
    gate = layout.layers[0].linears.get("gate") if layout is not None else None
    if gate is None:
        raise ModelError(
            f"{model.folder} does not tell how wide its MLP is.",
            "llama.cpp is measured beside ours on weights of the same shape; one layer alone tells none.",
            _FIX,
        )
    shape = {
        "layers": decoder.num_layers,
        "hidden": decoder.hidden_size,
        "mlp": gate.rows,
        "heads": decoder.num_attention_heads,
        "kv_heads": decoder.num_key_value_heads,
        "vocab": decoder.vocab_size,
    }
    odd = [name for name in ("hidden", "mlp") if shape[name] % _BLOCK]
    if odd or decoder.head_dim * decoder.num_attention_heads != decoder.hidden_size:
        raise ModelError(
            f"llama.cpp's Q4_0 cannot have this shape: {shape}.",
            f"Widths are cut into blocks of {_BLOCK}, and heads share the width evenly.",
            _FIX,
        )
    return shape
