"""Worker: llama.cpp on a GGUF file, flash attention on; a case is a micro-batch and a type of the KV cache.

    python llama_decoder.py FILE PROMPT GENERATE THREADS

Cases: "ubatch 128", "ubatch 512" (f16 KV), "f16", "q8_0" (micro-batch 512).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from worker import answers, serve, timed

stream = answers()

import llama_cpp as llama  # noqa: E402
import numpy as np  # noqa: E402

Q8_0 = 8
FLASH_ATTENTION = 1


@dataclass
class Reader:
    """One context of the model and where it stands."""

    context: Any
    micro_batch: int
    filled: bool = field(default=False)

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def keep(self, length: int) -> None:
        llama.llama_memory_seq_rm(llama.llama_get_memory(self.context), 0, length, -1)

    def feed(self, tokens: list[int], position: int) -> None:
        """One call of llama_decode; logits of the last token only. It splits the batch into micro-batches itself."""
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index == len(tokens) - 1
        status = llama.llama_decode(self.context, batch)
        llama.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        llama.llama_synchronize(self.context)


def main() -> None:
    path, (prompt, generate, threads) = sys.argv[1], map(int, sys.argv[2:])
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot open {path}")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    ids = np.random.default_rng(0).integers(0, vocabulary, prompt).tolist()
    readers: dict[str, Reader] = {}

    def reader(case: str) -> Reader:
        """The context of a case, made when it is first asked for."""
        # f16 and ubatch 512 are the same context.
        name = "ubatch 512" if case == "f16" else case
        if name not in readers:
            wanted = llama.llama_context_default_params()
            wanted.n_ctx = prompt + generate + 64
            wanted.n_batch = prompt
            wanted.n_ubatch = 128 if name == "ubatch 128" else 512
            wanted.n_threads = wanted.n_threads_batch = threads
            wanted.flash_attn_type = FLASH_ATTENTION
            if name == "q8_0":
                wanted.type_k = wanted.type_v = Q8_0
            readers[name] = Reader(llama.llama_init_from_model(model, wanted), wanted.n_ubatch)
        return readers[name]

    def read(case: str) -> dict[str, float]:
        one = reader(case)
        one.clear()
        one.filled = True
        return timed(lambda: one.feed(ids, 0))

    def write(case: str) -> dict[str, float]:
        one = reader(case)
        if not one.filled:
            read(case)
        one.keep(prompt)

        def tokens() -> None:
            token = ids[0]
            for step in range(generate):
                one.feed([token], prompt + step)
                logits = np.ctypeslib.as_array(llama.llama_get_logits(one.context), (vocabulary,))
                token = int(logits.argmax())

        return timed(tokens)

    serve(stream, ("llama_cpp_python", "numpy"), {"prefill": read, "decode": write})


if __name__ == "__main__":
    main()
