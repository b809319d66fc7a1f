"""llama.cpp in the Python that has it: `python llama_process.py REQUEST.json ANSWER.npz`.

A request names a GGUF file, prompts as ids, how many greedy tokens follow each, and texts to encode.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    llama = llama_cpp.Llama(
        request["model"], n_ctx=request["context"], n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False, n_gpu_layers=0,
    )  # fmt: skip
    found = {}
    for index, prompt in enumerate(request["prompts"]):
        llama.reset()
        llama.eval(prompt)
        found[f"logits-{index}"] = llama.scores[: len(prompt)].copy()
        tokens = [int(llama.scores[len(prompt) - 1].argmax())]
        while len(tokens) < request["steps"]:
            llama.eval(tokens[-1:])
            tokens.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        found[f"tokens-{index}"] = np.array(tokens)
    for index, text in enumerate(request["texts"]):
        ids = llama.tokenize(text.encode(), add_bos=False, special=True)
        found[f"ids-{index}"] = np.array(ids)
        found[f"text-{index}"] = np.frombuffer(llama.detokenize(ids, special=True), np.uint8)
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
