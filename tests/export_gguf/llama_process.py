"""llama.cpp in the Python that has it: `python llama_process.py REQUEST.json ANSWER.npz`.

A request names a GGUF file, prompts as ids, how many greedy tokens follow each, texts to encode, and a picture (uint8
[height, width, 3]) for the mmproj.gguf beside the file.
"""

import ctypes
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
    if request["picture"]:
        found["features"] = image_features(llama, Path(request["model"]).with_name("mmproj.gguf"), request["picture"])
    np.savez(sys.argv[2], **found)


def image_features(llama: llama_cpp.Llama, projector: Path, picture: str) -> np.ndarray:
    """What llama.cpp makes of a picture, [tokens, H]."""
    from llama_cpp import mtmd_cpp as mtmd

    settings = mtmd.mtmd_context_params_default()
    settings.use_gpu, settings.n_threads, settings.warmup = False, 1, False
    context = mtmd.mtmd_init_from_file(str(projector).encode(), llama.model, settings)
    assert context is not None, "mmproj.gguf does not load"
    pixels = np.load(picture)
    height, width, _ = pixels.shape
    bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    marker = mtmd.mtmd_default_marker()
    text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
    found = []
    for index in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, index)
        if mtmd.mtmd_input_chunk_get_type(chunk) != mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            continue
        assert mtmd.mtmd_encode_chunk(context, chunk) == 0
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama.n_embd())
        found.append(np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), shape).copy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
