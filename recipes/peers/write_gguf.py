"""Writes a decoder of random Q4_0 weights as GGUF, in the environment that has `gguf`.

    python write_gguf.py FILE '{"layers": 8, "hidden": 2304, "mlp": 5760, "heads": 36, "kv_heads": 36, "vocab": 122753}'

Every product is Q4_0, the head too, which llama.cpp's own quantizer would keep in six bits: the faster choice for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np

# Q4_0: 32 weights in a float16 scale and 16 bytes of nibbles.
BLOCK, BLOCK_BYTES, FILE_TYPE = 32, 18, 2
CONTEXT = 8192


def main() -> None:
    path, shape = Path(sys.argv[1]), json.loads(sys.argv[2])
    hidden, mlp, heads, kv_heads = (shape[key] for key in ("hidden", "mlp", "heads", "kv_heads"))
    head = hidden // heads
    vocabulary = -(-shape["vocab"] // BLOCK) * BLOCK
    rng = np.random.default_rng(0)
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(FILE_TYPE)
    writer.add_tokenizer_model("no_vocab")

    def product(name: str, rows: int, columns: int) -> None:
        blocks = rng.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), dtype=np.uint8)
        # Outputs about as large as inputs: nibbles spread 4.6 around 0.
        scale = rng.uniform(0.8, 1.2, (rows, columns // BLOCK, 1)) / 4.6 / columns**0.5
        blocks[..., :2] = scale.astype(np.float16).view(np.uint8)
        writer.add_tensor(f"{name}.weight", blocks.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))

    product("token_embd", vocabulary, hidden)
    product("output", vocabulary, hidden)
    norm("output_norm")
    for layer in range(shape["layers"]):
        place = f"blk.{layer}"
        norm(f"{place}.attn_norm")
        norm(f"{place}.ffn_norm")
        product(f"{place}.attn_q", hidden, hidden)
        product(f"{place}.attn_k", head * kv_heads, hidden)
        product(f"{place}.attn_v", head * kv_heads, hidden)
        product(f"{place}.attn_output", hidden, hidden)
        product(f"{place}.ffn_gate", mlp, hidden)
        product(f"{place}.ffn_up", mlp, hidden)
        product(f"{place}.ffn_down", hidden, mlp)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


if __name__ == "__main__":
    main()
