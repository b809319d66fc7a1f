"""What lies beside the static graphs: tables, tokenizer, the script and the words that say how a phone runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.device.contract.npu_config import ROTARY_FILE, AskSpec, GraphName, GraphSpec, NpuConfig, PortSpec
from stages.device.contract.static_activations import round_static
from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.messages import user
from stages.workshop.graph.checkpoint_settings import read_chat_template
from stages.workshop.graph.device_files import COPIED_FILES
from stages.workshop.graph.linear import Floats
from stages.workshop.graph.rotary import RotaryTables
from stages.workshop.npu.decoder import UNIT

SCRIPT = "run.py"
QUESTION = "QUESTION"


def whole_rotary(tables: RotaryTables) -> Floats:
    """cos and sin as the graphs take them, float32 [2, positions, D]: both halves, the first of sin negated."""
    cos, sin = tables.cos, tables.sin
    return np.stack([np.concatenate([cos, cos], -1), np.concatenate([-sin, sin], -1)]).astype(np.float32)


def ask_spec(prompts: PromptEncoder) -> AskSpec:
    """The template around one picture and one question.

    Raises:
        ModelError: the template changes the question or leaves out the picture.
    """
    text = prompts.encode([user(QUESTION, 1)], [1], add_generation_prompt=True).text
    before, picture, rest = text.partition(prompts.image_token)
    between, question, after = rest.partition(QUESTION)
    if not picture or not question:
        raise ModelError(
            "The chat template does not put a question behind its picture.",
            "run.py could not build the prompt.",
            "Use a template like that of bluelm's tokenizers.",
        )
    return AskSpec(before_picture=before, between=between, after=after)


def write_files(out: Path, source: Path, rotary: Floats) -> None:
    """Writes tables, tokenizer and chat template, and the script."""
    np.save(out / ROTARY_FILE, round_static(rotary, UNIT))
    (out / names.CHAT_TEMPLATE_FILE).write_text(read_chat_template(source), encoding="utf-8")
    for file in COPIED_FILES:
        if (source / file).is_file():
            shutil.copyfile(source / file, out / file)
    shutil.copyfile(Path(__file__).with_name(f"{SCRIPT}.txt"), out / SCRIPT)


def write_words(out: Path, config: NpuConfig, chips: Sequence[str]) -> None:
    """Writes README.md and genai_config.json.

    Args:
        out: the folder.
        config: its `npu.json`.
        chips: the chips whose context binaries are in it.
    """
    sizes = {chip: {file.name: file.stat().st_size for file in (out / chip).glob("*.bin")} for chip in chips}
    (out / "README.md").write_text(_readme(config, sizes), encoding="utf-8")
    text = json.dumps(pipeline(config, next(iter(chips), None)), indent=2) + "\n"
    (out / names.GENAI_CONFIG_FILE).write_text(text, encoding="utf-8")


def pipeline(config: NpuConfig, chip: str | None) -> dict[str, object]:
    """The graphs as a pipeline under onnxruntime-genai's keys.

    genai builds no mask and no tables of cosines for a pipeline's graphs, so an app drives them; `run.py` shows how.
    """
    decoder = config.decoder

    def stage(graph: GraphName, *, prompt: bool, token: bool) -> dict[str, object]:
        spec: GraphSpec = config.graphs[graph]
        where = f"{chip}/{spec.file}" if chip else spec.file
        provider = [{"qnn": {"backend_path": "libQnnHtp.so"}}] if chip else []
        return {
            "filename": where,
            "session_options": {"provider_options": provider},
            "inputs": list(spec.inputs),
            "outputs": list(spec.outputs),
            "run_on_prompt": prompt,
            "run_on_token_gen": token,
        }

    return {
        "model": {
            "type": "decoder-pipeline",
            "context_length": config.capacity,
            "vocab_size": decoder.vocab_size,
            "eos_token_id": list(config.prompt.eos_token_ids),
            "image_token_id": config.prompt.image_token_id,
            "vision": {
                "pipeline": [
                    {"patch-embed": stage("patch_embed", prompt=True, token=False)},
                    {"vision": stage("vision", prompt=True, token=False)},
                ]
            },
            "decoder": {
                "head_size": decoder.head_dim,
                "hidden_size": decoder.hidden_size,
                "num_attention_heads": decoder.num_attention_heads,
                "num_hidden_layers": decoder.num_layers,
                "num_key_value_heads": decoder.num_key_value_heads,
                "sliding_window": {"window_size": config.chunk, "pad_value": 0, "alignment": "left"},
                "pipeline": [
                    {"prompt-processor": stage("prefill", prompt=True, token=False)},
                    {"token-generator": stage("decode", prompt=False, token=True)},
                    {"lm-head": stage("head", prompt=True, token=True)},
                ],
            },
        },
        "search": {"max_length": config.capacity, "do_sample": False},
    }


def _readme(config: NpuConfig, chips: Mapping[str, Mapping[str, int]]) -> str:
    rows = "\n".join(
        f"| `{spec.file}` | {', '.join(f'{name} {list(port.shape)}' for name, port in _few(spec.inputs))} "
        f"| {', '.join(f'{name} {list(port.shape)}' for name, port in _few(spec.outputs))} |"
        for spec in config.graphs.values()
    )
    binaries = "\n".join(
        f"- `{chip}/`: " + ", ".join(f"`{file}` {size / 1e6:.1f} MB" for file, size in sorted(sizes.items()))
        for chip, sizes in chips.items()
    )
    return _TEXT.format(
        name=config.name,
        rows=rows,
        capacity=config.capacity,
        chunk=config.chunk,
        chips=binaries or "None yet: bluelm export … --target npu --soc snapdragon-8-gen-3 writes them.",
    )


def _few(ports: Mapping[str, PortSpec]) -> list[tuple[str, PortSpec]]:
    """Without the layers' caches, which are two a layer."""
    return [(name, port) for name, port in ports.items() if not name.startswith(("past_", "present."))]


_TEXT = """# {name}, static graphs for an NPU

Plain ONNX in QDQ form: INT4 and INT8 weights, activations as 16-bit integers with fixed scales, an INT8 KV cache, no
dynamic dimension, no operator outside ONNX. `npu.json` holds every scale; `run.py` is a whole program that answers.

| graph | takes | gives |
|---|---|---|
{rows}

Every layer also takes its cache (`past_key_values.n.key`, `.value`: {capacity} positions) and gives the keys and values
of this call (`present.n.key`, `.value`), which the caller copies to its place in the cache. `prefill.onnx` reads
{chunk} tokens a call, `decode.onnx` one; they share their weights. `head.onnx` makes logits of one hidden state.

## On a Snapdragon phone

Context binaries, compiled for one chip each with nothing left to the CPU:

{chips}

1. Put this folder on the phone. Only a chip's folder, `npu.json`, `rotary.npy`, `embedding.onnx.data` and
   `tokenizer.json` are needed there.
2. Add onnxruntime and its QNN provider to the app (Maven `com.microsoft.onnxruntime:onnxruntime-android` and
   `com.qualcomm.qti:onnxruntime-android-qnn`; the QNN runtime must be as new as the one that compiled the binaries).
3. Open `CHIP/prefill.onnx` and `CHIP/decode.onnx` with the session entry `ep.share_ep_contexts=1`: both are in one
   binary. The others open alone.
4. Do what `run.py` does: cut the picture, run `patch_embed` and `vision`, put the image tokens in their slots, read the
   prompt in chunks, then token by token.

`genai_config.json` lists the same graphs as a pipeline under onnxruntime-genai's keys; genai itself makes no mask and
no cosines for such graphs, so an app drives them.

## Elsewhere

`python run.py PICTURE "question"` runs the QDQ graphs on onnxruntime's CPU provider, slowly and with the NPU's numbers.
"""
